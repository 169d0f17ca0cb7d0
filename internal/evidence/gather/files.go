package gather

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// maxCRL is the most that is read of a CRL, in bytes: one with a million certificates
// has some 40 MB.
const maxCRL = 64 << 20

// certificateFile is the host's own certificate, read again when it changes.
type certificateFile struct {
	path  string
	stamp stamp
	last  *evidence.Certificate
}

// look is called by one goroutine at a time.
func (f *certificateFile) look(context.Context) *evidence.Certificate {
	if now := stampOf(f.path); f.last == nil || now != f.stamp || now == (stamp{}) {
		f.stamp, f.last = now, readCertificate(f.path)
	}
	return f.last
}

func readCertificate(path string) *evidence.Certificate {
	cert, err := firstCertificate(path)
	if err != nil {
		return &evidence.Certificate{Error: err.Error()}
	}
	// Go's verification and an agent's look at the alternative names alone; Puppet's CA
	// puts the certname among them.
	names := make([]string, len(cert.DNSNames))
	for i, n := range cert.DNSNames {
		names[i] = strings.ToLower(n)
	}
	if len(names) == 0 && cert.Subject.CommonName != "" {
		names = append(names, strings.ToLower(cert.Subject.CommonName))
	}
	slices.Sort(names)
	return &evidence.Certificate{Names: slices.Compact(names), NotAfter: cert.NotAfter}
}

func firstCertificate(path string) (*x509.Certificate, error) {
	data, err := readLimited(path, maxPEM)
	if err != nil {
		return nil, err
	}
	all, err := certificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all[0], nil
}

// certificates are those of a PEM file, at least one.
func certificates(data []byte) (all []*x509.Certificate, err error) {
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
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return all, nil
}

// crlFile is the host's CRL, which may be large: it is read again when it changes.
type crlFile struct {
	path, authority, cert string
	stamp                 [3]stamp
	last                  *evidence.CRL
}

// look is called by one goroutine at a time.
func (f *crlFile) look(context.Context) *evidence.CRL {
	now := [3]stamp{stampOf(f.path), stampOf(f.authority), stampOf(f.cert)}
	if f.last == nil || now != f.stamp || now[0] == (stamp{}) {
		f.stamp = now
		crl, err := readCRL(f.path, f.authority, f.cert)
		if err != nil {
			crl = &evidence.CRL{Error: err.Error()}
		}
		f.last = crl
	}
	return f.last
}

// readCRL understands a file with the CRL of each CA of the chain, as Puppet keeps it.
// The number is that of the one which revokes hosts; the dates are those of whichever
// ends first, for puppetserver refuses every connection then.
func readCRL(path, authority, cert string) (*evidence.CRL, error) {
	data, err := readLimited(path, maxCRL)
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	if authority != "" {
		pem, err := readLimited(authority, maxPEM)
		if err == nil {
			cas, err = certificates(pem)
		}
		if err != nil {
			return nil, fmt.Errorf("the CA's certificates: %w", err)
		}
	}
	var issuer []byte
	if own, err := firstCertificate(cert); err == nil {
		issuer = own.RawIssuer
	}
	var e *evidence.CRL
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if authority != "" && !slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return list.CheckSignatureFrom(ca) == nil }) {
			return nil, fmt.Errorf("%s: the CRL of %s is not signed by the CA", path, list.Issuer)
		}
		number := ""
		if list.Number != nil {
			number = list.Number.String()
		}
		if e == nil {
			e = &evidence.CRL{Number: number, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate}
			continue
		}
		if string(list.RawIssuer) == string(issuer) {
			e.Number = number
		}
		if list.NextUpdate.Before(e.NextUpdate) {
			e.ThisUpdate, e.NextUpdate = list.ThisUpdate, list.NextUpdate
		}
	}
	if e == nil {
		return nil, fmt.Errorf("%s: no CRL in it", path)
	}
	return e, nil
}
