package cadir

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// crls are a file of revocation lists, one of each CA of a chain.
type crls struct {
	lists []*x509.RevocationList

	mu sync.Mutex
	by Sum // the bundle that they were found to be signed by
}

func parseCRLs(data []byte) (*crls, error) {
	c := &crls{}
	err := eachBlock(data, "X509 CRL", func(der []byte) error {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return fmt.Errorf("list %d: %w", len(c.lists)+1, err)
		}
		c.lists = append(c.lists, list)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// signedBy says which of the lists is not of a CA of the bundle, and whether the CA that
// signs has none. Whether they have expired is not asked: an old list is better than
// none, and its age is seen elsewhere.
func (c *crls) signedBy(b *bundle) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == b.sum {
		return nil
	}
	for i, list := range c.lists {
		ok := false
		for _, ca := range b.certs {
			ok = ok || string(list.RawIssuer) == string(ca.RawSubject) && list.CheckSignatureFrom(ca) == nil
		}
		if !ok {
			return fmt.Errorf("list %d, of %q, is not signed by a CA of %s", i+1, list.Issuer.CommonName, certFile)
		}
	}
	c.by = b.sum
	return nil
}

// of returns the list of an issuer, nil if there is none.
func (c *crls) of(ca *x509.Certificate) *x509.RevocationList {
	for _, list := range c.lists {
		if string(list.RawIssuer) == string(ca.RawSubject) {
			return list
		}
	}
	return nil
}

// evidence is what a report says of the list that the CA itself signs.
func (c *crls) evidence(ca *x509.Certificate) *evidence.CRL {
	list := c.of(ca)
	if list == nil {
		return &evidence.CRL{Error: fmt.Sprintf("%s has no list of %q", crlFile, ca.Subject.CommonName)}
	}
	e := &evidence.CRL{ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate}
	if list.Number != nil {
		e.Number = list.Number.String()
	}
	return e
}

// lost returns the serials that old revokes and c does not, but for those that had
// expired by now, which `puppetserver ca prune` takes out.
func (c *crls) lost(old *crls, expired func(*big.Int, time.Time) bool, now time.Time) []*big.Int {
	var lost []*big.Int
	for _, o := range old.lists {
		known := make(map[string]bool)
		for _, n := range c.lists {
			if string(n.RawIssuer) != string(o.RawIssuer) {
				continue
			}
			for _, e := range n.RevokedCertificateEntries {
				known[string(e.SerialNumber.Bytes())] = true
			}
		}
		for _, e := range o.RevokedCertificateEntries {
			if !known[string(e.SerialNumber.Bytes())] && !expired(e.SerialNumber, now) {
				lost = append(lost, e.SerialNumber)
			}
		}
	}
	return lost
}
