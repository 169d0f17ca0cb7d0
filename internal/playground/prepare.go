package main

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// prepare writes everything that the processes read.
func (l layout) prepare() error {
	ca, err := stub.NewCA("Puppet CA: playground, thrown away at its end")
	if err != nil {
		return err
	}
	gossipKey, err := gossip.Generate()
	if err != nil {
		return fmt.Errorf("making the gossip key: %w", err)
	}
	keyFile := []byte(base64.StdEncoding.EncodeToString(gossipKey) + "\n")
	files := map[string][]byte{
		l.caPath():   ca.PEM(),
		l.zonePath(): []byte(l.zonefile()),
	}
	issue := func(cert, key string, o stub.IssueOptions) error {
		id, err := ca.Issue(o)
		if err == nil {
			files[cert], files[key] = id.CertPEM, id.KeyPEM
		}
		return err
	}
	for _, n := range l.nodes {
		files[l.corefilePath(n)] = []byte(l.corefile(n))
		files[l.gossipKeyPath(n.name)] = keyFile
		// Their API is asked by address: example.net resolves elsewhere.
		err := issue(l.certPath(n.name), l.keyPath(n.name), stub.IssueOptions{
			CommonName: n.host, DNSNames: []string{"localhost"},
			IPAddresses: []netip.Addr{n.admin.Addr(), netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		})
		if err != nil {
			return err
		}
	}
	// Every certificate carries every service name, because with `targets
	// service` any master may stand in for any other, and the camaster's,
	// because any CA-capable one may become it.
	names := []string{"puppet-camaster." + zoneName}
	for _, m := range l.masters {
		names = append(names, m.service)
	}
	for _, m := range l.masters {
		// The certificate of a CA's own host may revoke.
		if err := issue(l.certPath(m.name), l.keyPath(m.name), stub.IssueOptions{CommonName: m.host, DNSNames: names, CLIAuth: m.ca}); err != nil {
			return err
		}
		files[filepath.Join(l.dir, m.name, "environments", "production", "REVISION")] = []byte("playground\n")
		if l.members {
			files[l.memberPath(m)] = []byte(l.memberFile(m))
			files[l.gossipKeyPath(m.name)] = keyFile
		}
	}
	cert := filepath.Join(l.sslDir(), "certs", operator+".pem")
	key := filepath.Join(l.sslDir(), "private_keys", operator+".pem")
	if err := issue(cert, key, stub.IssueOptions{CommonName: operator}); err != nil {
		return err
	}
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("preparing the run directory: %w", err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("preparing the run directory: %w", err)
		}
	}
	return l.found(ca)
}
