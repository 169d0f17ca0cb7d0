package stub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// CA is a certificate authority as `puppetserver ca setup` makes one: a
// self-signed root whose issued certificates are good for both ends of a
// connection. Its key lives in memory only. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte

	mu      sync.Mutex
	serial  int64 // of the certificate issued last; Puppet's CA counts from 1 too
	lists   int64 // CRLs signed
	revoked []x509.RevocationListEntry
}

// IssueOptions says what a certificate is for.
type IssueOptions struct {
	// CommonName is the certname. It is also the first DNS name of the
	// certificate, as in every certificate of a Puppet CA.
	CommonName string
	// DNSNames are the further names (Puppet's dns_alt_names).
	DNSNames []string
	// IPAddresses are those of a server that is asked without a name.
	IPAddresses []netip.Addr
	// NotBefore and NotAfter default to an hour ago and in five years.
	// Times in the past or the future are allowed: they are what a test of
	// expiry asks for.
	NotBefore, NotAfter time.Time
}

// Identity is a certificate with its key.
type Identity struct {
	Certificate     tls.Certificate
	CertPEM, KeyPEM []byte
}

// NewCA makes a CA whose certificate has the given common name; Puppet's own
// are named "Puppet CA: HOST".
func NewCA(commonName string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of CA %q: %w", commonName, err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.AddDate(0, 0, -1), // Puppet backdates by a day, for clocks that differ
		NotAfter:              now.AddDate(15, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of CA %q: %w", commonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate of CA %q: %w", commonName, err)
	}
	return &CA{
		cert:   cert,
		key:    key,
		pem:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		serial: 1,
	}, nil
}

// PEM returns the CA's certificate, as agents keep it in ca.pem.
func (ca *CA) PEM() []byte { return slices.Clone(ca.pem) }

// Pool returns a pool that holds this CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Issue signs a certificate for a new key.
func (ca *CA) Issue(o IssueOptions) (*Identity, error) {
	if o.CommonName == "" {
		return nil, errors.New("issuing a certificate: CommonName is empty")
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-time.Hour)
		// A caller that only says when it ended means a certificate that was
		// good before.
		if !o.NotAfter.IsZero() && o.NotAfter.Before(o.NotBefore) {
			o.NotBefore = o.NotAfter.AddDate(-1, 0, 0)
		}
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = o.NotBefore.AddDate(5, 0, 0)
	}
	names := []string{o.CommonName}
	for _, name := range o.DNSNames {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}

	var addresses []net.IP
	for _, a := range o.IPAddresses {
		addresses = append(addresses, a.AsSlice())
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of %q: %w", o.CommonName, err)
	}
	ca.mu.Lock()
	ca.serial++
	serial := ca.serial
	ca.mu.Unlock()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: o.CommonName},
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              names,
		IPAddresses:           addresses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %q: %w", o.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of %q: %w", o.CommonName, err)
	}
	id := &Identity{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	if id.Certificate, err = tls.X509KeyPair(id.CertPEM, id.KeyPEM); err != nil {
		return nil, fmt.Errorf("pairing certificate and key of %q: %w", o.CommonName, err)
	}
	return id, nil
}

// Revoke puts certificates on the CA's list; see CRL.
func (ca *CA) Revoke(serials ...*big.Int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, n := range serials {
		ca.revoked = append(ca.revoked, x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now()})
	}
}

// CRL returns the list of revoked certificates, as agents keep it in crl.pem. Each
// call signs a new one.
func (ca *CA) CRL() ([]byte, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.lists++
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    big.NewInt(ca.lists),
		ThisUpdate:                time.Now(),
		NextUpdate:                time.Now().AddDate(5, 0, 0),
		RevokedCertificateEntries: ca.revoked,
	}, ca.cert, ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing a CRL: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}
