package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// found makes the playground's CA a cadir of the first camaster's, where it goes on
// counting: the CA in memory issues nothing after that. Everybody has the first CRL.
func (l layout) found(ca *stub.CA) error {
	d, err := stub.NewCADir(l.cadirPath(l.first()), ca)
	if err != nil {
		return err
	}
	crl, err := os.ReadFile(filepath.Join(d.Path(), "ca_crl.pem"))
	if err != nil {
		return fmt.Errorf("reading the first CRL: %w", err)
	}
	paths := []string{l.crlPath()}
	for _, m := range l.masters {
		paths = append(paths, l.hostCRLPath(m))
	}
	for _, path := range paths {
		if err := publishCRL(path, crl); err != nil {
			return err
		}
	}
	return nil
}

// publishCRL replaces a CRL by rename, as puppetserver and agents do.
func publishCRL(path string, pem []byte) error {
	if err := os.WriteFile(path+".tmp", pem, 0o644); err != nil {
		return fmt.Errorf("writing the CRL: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("writing the CRL: %w", err)
	}
	return nil
}
