// Writes the golden files of result conversion; see README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
)

// One case: a plugin's answer in the shape of the old versions, and in that of the newer ones.
type goldenCase struct {
	name           string
	legacy, modern string
}

var cases = []goldenCase{
	{"v4_only",
		`{"ip4":{"ip":"10.1.2.3/24","gateway":"10.1.2.1"}}`,
		`{"interfaces":[{"name":"eth0","mac":"0a:00:00:00:00:01","sandbox":"/run/netns/a"}],"ips":[{"version":"4","interface":0,"address":"10.1.2.3/24","gateway":"10.1.2.1"}]}`},
	{"v6_only",
		`{"ip6":{"ip":"FD00:0:0::5/64","gateway":"fd00::1"}}`,
		`{"ips":[{"version":"6","address":"FD00:0:0::5/64","gateway":"fd00::1"}]}`},
	{"dual_stack",
		`{"ip4":{"ip":"10.1.2.3/24"},"ip6":{"ip":"fd00::5/64"}}`,
		`{"interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/n"}],"ips":[{"version":"6","interface":1,"address":"fd00::5/64"},{"version":"4","interface":1,"address":"10.1.2.3/24"},{"version":"4","interface":1,"address":"10.9.2.3/24"}]}`},
	{"routes",
		`{"ip4":{"ip":"10.1.2.3/24","routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1"},{"dst":"fd01::/64"}]},"ip6":{"ip":"fd00::5/64","routes":[{"dst":"::/0","gw":"fd00::1"}]}}`,
		`{"ips":[{"version":"4","address":"10.1.2.3/24"},{"version":"6","address":"fd00::5/64"}],"routes":[{"dst":"::/0","gw":"fd00::1"},{"dst":"0.0.0.0/0","gw":"10.1.2.1"},{"dst":"10.5.0.1/16"}]}`},
	{"routes_of_an_absent_family",
		`{"ip4":{"ip":"10.1.2.3/24","routes":[{"dst":"::/0"}]}}`,
		`{"ips":[{"version":"4","address":"10.1.2.3/24"}],"routes":[{"dst":"::/0","gw":"fd00::1"},{"dst":"0.0.0.0/0"}]}`},
	{"route_attributes",
		`{"ip4":{"ip":"10.1.2.3/24","routes":[{"dst":"0.0.0.0/0","mtu":1400,"advmss":1360,"priority":5,"table":0,"scope":253}]}}`,
		`{"ips":[{"version":"4","address":"10.1.2.3/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1","mtu":1400,"advmss":1360,"priority":5,"table":0,"scope":253}]}`},
	{"dns",
		`{"ip4":{"ip":"10.1.2.3/24"},"dns":{"nameservers":["10.0.0.53"],"domain":"a.b","search":["a.b","b"],"options":["ndots:5"]}}`,
		`{"ips":[{"version":"4","address":"10.1.2.3/24"}],"dns":{"nameservers":["10.0.0.53"],"domain":"a.b","search":["a.b","b"],"options":["ndots:5"]}}`},
	{"interface_members_of_1_1",
		`{"ip4":{"ip":"10.1.2.3/24"}}`,
		`{"interfaces":[{"name":"eth0","mac":"0a:00:00:00:00:01","mtu":1450,"sandbox":"/n","socketPath":"/s","pciID":"0000:00:1f.6"}],"ips":[{"version":"4","interface":0,"address":"10.1.2.3/24"}]}`},
	{"no_address",
		`{"dns":{"domain":"a"}}`,
		`{"interfaces":[{"name":"eth1","sandbox":"/n"}]}`},
	{"empty", `{}`, `{}`},
	{"null", `null`, `null`},
	{"version_and_address_disagree",
		`{"ip4":{"ip":"fd00::5/64"},"ip6":{"ip":"10.1.2.3/24"}}`,
		`{"ips":[{"version":"6","address":"10.1.2.3/24"},{"version":"4","address":"fd00::5/64"}],"routes":[{"dst":"10.0.0.0/8"}]}`},
	{"address_without_version",
		`{"ip4":{"ip":"10.1.2.3/24"}}`,
		`{"ips":[{"address":"10.1.2.3/24"},{"address":"fd00::5/64"}]}`},
	{"mapped_addresses",
		`{"ip6":{"ip":"::ffff:10.0.0.1/120","gateway":"::ffff:10.0.0.9"}}`,
		`{"ips":[{"version":"6","address":"::ffff:10.0.0.1/120","gateway":"::ffff:10.0.0.9"},{"version":"4","address":"::ffff:10.0.0.2/64"}]}`},
	{"nulls_and_empty_texts",
		`{"ip4":{"ip":"10.1.2.3/24","gateway":"","routes":null},"ip6":null,"dns":null}`,
		`{"interfaces":null,"ips":[{"version":"4","address":"10.1.2.3/24","gateway":"","interface":null}],"routes":[{"dst":"0.0.0.0/0","gw":"","mtu":null}],"dns":{"nameservers":null,"domain":null}}`},
	{"case_duplicates_and_negative_index",
		`{"IP4":{"IP":"10.9.9.9/24"},"ip4":{"ip":"10.1.2.3/24"}}`,
		`{"ips":[{"Version":"4","ADDRESS":"10.9.9.9/24","address":"10.1.2.3/24","interface":-1}],"Interfaces":[{"NAME":"eth0"}]}`},
	{"wrong_types",
		`{"ip4":{"ip":7}}`,
		`{"ips":[{"version":"4","address":7}]}`},
	{"wrong_address",
		`{"ip4":{"ip":"10.1.2.3"}}`,
		`{"ips":[{"version":"4","address":"10.1.2.300/24"}]}`},
	{"wrong_gateway",
		`{"ip4":{"ip":"10.1.2.3/24","gateway":"x"}}`,
		`{"ips":[{"version":"4","address":"10.1.2.3/24","gateway":"10.1.2"}]}`},
}

// Answers with fixed bytes instead of running a program.
type answer struct{ stdout []byte }

func (a *answer) ExecPlugin(context.Context, string, []byte, []string) ([]byte, error) {
	return a.stdout, nil
}
func (a *answer) FindInPath(string, []string) (string, error) { return "", nil }
func (a *answer) Decode(b []byte) (version.PluginInfo, error) { return nil, nil }

// A case as it is written: each different output once, and a table that points to them.
type file struct {
	bodies  map[string]string
	outputs []string
	// By body and version of the answer: an index into outputs for each version of the config, -1 for an error.
	table map[string]map[string][]int
}

// The place of an output, without its cniVersion, which is checked here.
func (f *file) add(output json.RawMessage, to string) int {
	var members map[string]any
	if err := json.Unmarshal(output, &members); err != nil || members["cniVersion"] != to {
		log.Fatalf("%s is no result of version %s: %v", output, to, err)
	}
	delete(members, "cniVersion")
	text, err := json.Marshal(members)
	if err != nil {
		log.Fatal(err)
	}
	at := slices.Index(f.outputs, string(text))
	if at < 0 {
		f.outputs = append(f.outputs, string(text))
		at = len(f.outputs) - 1
	}
	return at
}

func convert(body, from, to string) (json.RawMessage, error) {
	stdout := body
	if from != "" && body != "null" {
		// In front, so that duplicates in the body stay what they are.
		rest := body[1:]
		if rest != "}" {
			rest = "," + rest
		}
		stdout = fmt.Sprintf(`{"cniVersion":%q%s`, from, rest)
	}
	conf := []byte(fmt.Sprintf(`{"cniVersion":%q,"name":"n","type":"t"}`, to))
	exec := &answer{[]byte(stdout)}
	result, err := invoke.ExecPluginWithResult(context.Background(), "t", conf, &invoke.Args{}, exec)
	if err != nil {
		return nil, err
	}
	if result, err = result.GetAsVersion(to); err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: go run . DIRECTORY")
	}
	versions := version.All.SupportedVersions()
	for _, c := range cases {
		out := file{bodies: map[string]string{"legacy": c.legacy, "modern": c.modern}}
		out.table = map[string]map[string][]int{"legacy": {}, "modern": {}}
		for _, body := range []string{"legacy", "modern"} {
			for _, from := range append([]string{""}, versions...) {
				for _, to := range versions {
					at := -1
					if output, err := convert(out.bodies[body], from, to); err == nil {
						at = out.add(output, to)
					}
					out.table[body][from] = append(out.table[body][from], at)
				}
			}
		}
		write(filepath.Join(os.Args[1], c.name+".json"), out)
	}
}

// One output and one row a line, so that a changed case shows as changed lines.
func write(path string, out file) {
	var text strings.Builder
	fmt.Fprintf(&text, "{\"bodies\": {\n  \"legacy\": %s,\n  \"modern\": %s\n},\n", out.bodies["legacy"], out.bodies["modern"])
	fmt.Fprintf(&text, "\"outputs\": [\n  %s\n],\n\"table\": {", strings.Join(out.outputs, ",\n  "))
	for i, body := range []string{"legacy", "modern"} {
		var rows []string
		for _, from := range append([]string{""}, version.All.SupportedVersions()...) {
			row, err := json.Marshal(out.table[body][from])
			if err != nil {
				log.Fatal(err)
			}
			rows = append(rows, fmt.Sprintf("  %q: %s", from, row))
		}
		fmt.Fprintf(&text, "%s\n%q: {\n%s\n}", []string{"", ","}[i], body, strings.Join(rows, ",\n"))
	}
	text.WriteString("\n}}\n")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}
