// Command netpol enforces NetworkPolicies (networking.k8s.io/v1) for the pods of one node of the test cluster, whose
// own network is a plain bridge. It runs in the node's network namespace, asks the API server every second and
// loads one nftables table. It is for tests, and knows IPv4 only; what it cannot express ends it with a message.
//
//	netpol SERVER PKI-FOLDER POD-RANGE      e.g. netpol https://10.90.0.1:6443 …/pki 10.244.1.0/24
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Between two looks.
	period = time.Second
	// The API server is in the same cluster.
	timeout = 5 * time.Second
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: netpol SERVER PKI-FOLDER POD-RANGE")
	}
	podRange, err := netip.ParsePrefix(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	api, err := newServer(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	loaded := ""
	for ; ; time.Sleep(period) {
		seen, err := api.look()
		if err != nil {
			// What is loaded stays: the API server may be away for a test's sake.
			log.Print(err)
			continue
		}
		wanted, err := seen.table(podRange)
		if err != nil {
			log.Fatal(err)
		}
		if wanted == loaded {
			continue
		}
		if err := load(wanted); err != nil {
			log.Fatal(err)
		}
		loaded = wanted
		log.Printf("loaded rules of %d policies", len(seen.policies.Items))
	}
}

// load replaces the table in one step.
func load(table string) error {
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(table)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s\n%s", err, said, table)
	}
	return nil
}

// server is the API server, asked as administrator.
type server struct {
	address string
	client  *http.Client
}

func newServer(address, pki string) (*server, error) {
	authority, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("there is no certificate in ca.crt")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "admin.crt"), filepath.Join(pki, "admin.key"))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}
	return &server{address, &http.Client{Transport: transport, Timeout: timeout}}, nil
}

// look reads what rules are made of. Pods matter only where there is a policy.
func (s *server) look() (*cluster, error) {
	seen := &cluster{}
	if err := s.list("/apis/networking.k8s.io/v1/networkpolicies", &seen.policies); err != nil {
		return nil, err
	}
	if len(seen.policies.Items) == 0 {
		return seen, nil
	}
	if err := s.list("/api/v1/namespaces", &seen.namespaces); err != nil {
		return nil, err
	}
	return seen, s.list("/api/v1/pods", &seen.pods)
}

// list reads a list as the API server's cache has it.
func (s *server) list(path string, into any) error {
	answer, err := s.client.Get(s.address + path + "?resourceVersion=0")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
