module ratchet/cni-golden

go 1.23

require github.com/containernetworking/cni v1.3.0
