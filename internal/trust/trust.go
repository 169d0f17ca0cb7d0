// Package trust says whose word counts: certificates of the Puppet CA that are
// valid and not revoked. It reads the CA's files, follows changes of the CRL, and
// seals messages with a Puppet key so that others know who wrote them.
//
// It never decides what a certname may do; its users do.
package trust

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrRevoked is wrapped by the error of a certificate that the CRL names.
var ErrRevoked = errors.New("revoked")

// maxCached bounds how many verified chains are remembered.
const maxCached = 1024

// Authority is a Puppet CA: its certificates and what it has revoked. It is safe
// for concurrent use.
type Authority struct {
	pool  *x509.CertPool
	roots *x509.CertPool      // where chains end
	certs []*x509.Certificate // of the bundle
	crl   *crlFile            // nil: revocations are not looked at

	mu     sync.Mutex
	chains map[[sha256.Size]byte][][]*x509.Certificate // verified, by the leaf's fingerprint
}

// Open reads a CA bundle, as Puppet's ca.pem, and a file of CRLs, as its crl.pem;
// crlFile "" means that revocations are not looked at.
func Open(caFile, crlFile string) (*Authority, error) {
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("CA bundle: %w", err)
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("CA bundle %s: %w", caFile, err)
	}
	a := &Authority{pool: x509.NewCertPool(), roots: x509.NewCertPool(), certs: certs, chains: make(map[[sha256.Size]byte][][]*x509.Certificate)}
	for _, c := range certs {
		a.pool.AddCert(c)
		// A chain goes on to the end, so that revocations by all in it count. A CA that
		// was renewed with its key is there twice, each issued by the other.
		selfSigned := issuedBy(c.RawIssuer, c) && c.CheckSignatureFrom(c) == nil
		if selfSigned || !slices.ContainsFunc(certs, func(o *x509.Certificate) bool {
			return !c.Equal(o) && issuedBy(c.RawIssuer, o) && c.CheckSignatureFrom(o) == nil
		}) {
			a.roots.AddCert(c)
		}
	}
	if crlFile != "" {
		if a.crl, err = openCRL(crlFile, certs); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

// Pool returns the CA's certificates. It must not be changed.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// Verify says whether leaf is a certificate of the CA that was valid at a time,
// and that is not revoked as of now. With usages, one of them must be in the
// certificate. Its errors are for people.
func (a *Authority) Verify(leaf *x509.Certificate, intermediates []*x509.Certificate, at time.Time, usages ...x509.ExtKeyUsage) error {
	chains, err := a.chainsOf(leaf, intermediates, at)
	if err != nil {
		return err
	}
	if len(usages) > 0 && !hasUsage(leaf, usages) {
		return fmt.Errorf("the certificate of %s is not made for this use", Certname(leaf))
	}
	// One good chain is enough: a CA that was renewed makes two.
	for _, chain := range chains {
		if err = a.verifyChain(chain, at); err == nil {
			return nil
		}
	}
	return err
}

func (a *Authority) verifyChain(chain []*x509.Certificate, at time.Time) error {
	leaf := chain[0]
	for _, c := range chain {
		switch {
		case at.Before(c.NotBefore):
			return fmt.Errorf("the certificate of %s is not valid before %s", Certname(c), c.NotBefore.UTC().Format(time.RFC3339))
		case at.After(c.NotAfter):
			return fmt.Errorf("the certificate of %s has expired at %s", Certname(c), c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if a.crl != nil && a.crl.revoked(chain) {
		return fmt.Errorf("the certificate of %s (serial %s) is %w", Certname(leaf), leaf.SerialNumber, ErrRevoked)
	}
	return nil
}

// chainsOf returns the chains from leaf to the CA. Building them costs signatures, so
// those that were built are remembered; whether one is valid at a time, and not
// revoked, is asked each time.
func (a *Authority) chainsOf(leaf *x509.Certificate, intermediates []*x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	fingerprint := sha256.Sum256(leaf.Raw)
	a.mu.Lock()
	chains, ok := a.chains[fingerprint]
	a.mu.Unlock()
	if ok {
		return chains, nil
	}
	pool := x509.NewCertPool()
	for _, c := range slices.Concat(a.certs, intermediates) {
		pool.AddCert(c)
	}
	// At every time at which a certificate of the bundle begins or ends, so that a
	// chain is found that is good later, and one that was.
	times := []time.Time{at, leaf.NotBefore, leaf.NotAfter}
	for _, c := range a.certs {
		times = append(times, c.NotBefore, c.NotAfter)
	}
	var err error
	for _, t := range times {
		found, e := leaf.Verify(x509.VerifyOptions{
			Roots: a.roots, Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			CurrentTime: clamp(t, leaf.NotBefore, leaf.NotAfter),
		})
		if e != nil {
			err = cmp.Or(err, e)
			continue
		}
		for _, chain := range found {
			if !slices.ContainsFunc(chains, func(o []*x509.Certificate) bool { return slices.EqualFunc(o, chain, (*x509.Certificate).Equal) }) {
				chains = append(chains, chain)
			}
		}
	}
	if len(chains) == 0 {
		return nil, fmt.Errorf("the certificate of %s is not of our Puppet CA: %w", Certname(leaf), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.chains) >= maxCached {
		clear(a.chains)
	}
	a.chains[fingerprint] = chains
	return chains, nil
}

func clamp(t, lo, hi time.Time) time.Time {
	switch {
	case t.Before(lo):
		return lo
	case t.After(hi):
		return hi
	}
	return t
}

func hasUsage(c *x509.Certificate, usages []x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true // no restriction (RFC 5280, section 4.2.1.12)
	}
	for _, has := range c.ExtKeyUsage {
		for _, want := range usages {
			if has == want || has == x509.ExtKeyUsageAny {
				return true
			}
		}
	}
	return false
}

// Revocation returns when the CRLs that were read last are due to be replaced
// (zero if none is looked at), and why a changed file could not be used. The old
// one then still holds.
func (a *Authority) Revocation() (nextUpdate time.Time, err error) {
	if a.crl == nil {
		return time.Time{}, nil
	}
	return a.crl.state()
}

// Certname is who a certificate is: its common name in lower case.
func Certname(c *x509.Certificate) string { return strings.ToLower(c.Subject.CommonName) }

// issuedBy reports whether ca's name is the issuer of what names issuer.
func issuedBy(issuer []byte, ca *x509.Certificate) bool { return bytes.Equal(issuer, ca.RawSubject) }
