package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// prepare writes everything that the processes read.
func (l layout) prepare() error {
	ca, err := stub.NewCA("Puppet CA: playground, thrown away at its end")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		l.caPath():   ca.PEM(),
		l.zonePath(): []byte(l.zonefile()),
	}
	for _, n := range l.nodes {
		files[l.corefilePath(n)] = []byte(l.corefile(n))
	}
	// Every certificate carries every service name, because with `targets
	// service` any master may stand in for any other, and the camaster's,
	// because any CA-capable one may become it.
	names := []string{"puppet-camaster." + zoneName}
	for _, m := range l.masters {
		names = append(names, m.service)
	}
	for _, m := range l.masters {
		id, err := ca.Issue(stub.IssueOptions{CommonName: m.host, DNSNames: names})
		if err != nil {
			return err
		}
		files[l.certPath(m)], files[l.keyPath(m)] = id.CertPEM, id.KeyPEM
	}
	for path, content := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("preparing the run directory: %w", err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("preparing the run directory: %w", err)
		}
	}
	return nil
}
