// What the API server itself needs for many Links: creates each of a list of objects, and prints the seconds that it took.
//
//	creates URL CA TOKEN PARALLEL <LIST
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

type object struct {
	Metadata struct {
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("creates URL CA TOKEN PARALLEL <LIST")
	}
	url, token := os.Args[1], os.Args[3]
	ca, err := os.ReadFile(os.Args[2])
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	parallel, err := strconv.Atoi(os.Args[4])
	must(err)
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	must(json.NewDecoder(os.Stdin).Decode(&list))

	// HTTP/2, so one connection, as the controller has.
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "kubernetes"},
		ForceAttemptHTTP2: true,
	}}
	items := make(chan json.RawMessage)
	var workers sync.WaitGroup
	began := time.Now()
	for range parallel {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for item := range items {
				create(client, url, token, item)
			}
		}()
	}
	for _, item := range list.Items {
		items <- item
	}
	close(items)
	workers.Wait()
	fmt.Printf("%.2f\n", time.Since(began).Seconds())
}

func create(client *http.Client, url, token string, item []byte) {
	var of object
	must(json.Unmarshal(item, &of))
	path := url + "/apis/ratchet.dev/v1alpha1/namespaces/" + of.Metadata.Namespace + "/links"
	request, err := http.NewRequest("POST", path, bytes.NewReader(item))
	must(err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	must(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(err)
	if response.StatusCode != http.StatusCreated {
		log.Fatalf("%s: %s", response.Status, text)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
