package main

import (
	"fmt"
	"math/big"
	"os"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// authority is the playground's CA. Its key is in this process's memory alone, so
// only the playground can revoke what it has issued.
type authority struct {
	*stub.CA
	crl     string              // the file that everybody reads
	serials map[string]*big.Int // by certname
}

func newAuthority(crl string) (*authority, error) {
	ca, err := stub.NewCA("Puppet CA: playground, thrown away at its end")
	if err != nil {
		return nil, err
	}
	return &authority{CA: ca, crl: crl, serials: make(map[string]*big.Int)}, nil
}

func (a *authority) issue(o stub.IssueOptions) (*stub.Identity, error) {
	id, err := a.Issue(o)
	if err == nil {
		a.serials[o.CommonName] = id.Certificate.Leaf.SerialNumber
	}
	return id, err
}

// revoke makes a certificate worthless for whoever reads the CRL. Nothing takes
// that back.
func (a *authority) revoke(certname string) error {
	serial, ok := a.serials[certname]
	if !ok {
		return fmt.Errorf("no certificate was issued to %q: certnames are as %s, or m1.%s", certname, operator, zoneName)
	}
	a.Revoke(serial)
	return a.publish()
}

// publish replaces the CRL by rename, as puppetserver and agents do.
func (a *authority) publish() error {
	pem, err := a.CRL()
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.crl+".tmp", pem, 0o644); err != nil {
		return fmt.Errorf("writing the CRL: %w", err)
	}
	if err := os.Rename(a.crl+".tmp", a.crl); err != nil {
		return fmt.Errorf("writing the CRL: %w", err)
	}
	return nil
}
