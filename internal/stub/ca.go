package stub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// CA is a certificate authority as `puppetserver ca setup` makes one: a
// self-signed root whose issued certificates are good for both ends of a
// connection. Its key lives in memory only, until NewCADir writes it to a cadir, which
// then counts on. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte

	mu      sync.Mutex
	serial  int64 // of the certificate issued last; Puppet's CA counts from 1 too
	lists   int64 // CRLs signed
	revoked []x509.RevocationListEntry
	issued  []*x509.Certificate
	onDisk  string // the cadir that has taken over; "" while none has
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
	// CLIAuth adds pp_cli_auth = true, as the certificate of the CA's own host has it:
	// auth.conf lets such a one sign and revoke.
	CLIAuth bool
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
	var extensions []pkix.Extension
	if o.CLIAuth {
		value, err := asn1.MarshalWithParams("true", "utf8")
		if err != nil {
			return nil, fmt.Errorf("encoding pp_cli_auth of %q: %w", o.CommonName, err)
		}
		extensions = append(extensions, pkix.Extension{Id: cliAuth, Value: value})
	}
	serial, err := ca.nextSerial()
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate for %q: %w", o.CommonName, err)
	}
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
		ExtraExtensions:       extensions,
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
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.issued = append(ca.issued, id.Certificate.Leaf)
	return id, nil
}

func (ca *CA) nextSerial() (int64, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.onDisk != "" {
		return 0, ca.gone()
	}
	ca.serial++
	return ca.serial, nil
}

func (ca *CA) gone() error {
	return fmt.Errorf("the CA is in %s now, which counts its numbers: submit a request there", ca.onDisk)
}

// caFile is one of those that make a cadir.
type caFile struct {
	name    string
	content []byte
	mode    fs.FileMode
}

// handOver returns what makes a cadir of the CA, and has it issue nothing more.
func (ca *CA) handOver(path string) ([]caFile, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.onDisk != "" {
		return nil, ca.gone()
	}
	key, err := x509.MarshalECPrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("encoding the CA's key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(ca.key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the CA's key: %w", err)
	}
	crl, err := ca.sign()
	if err != nil {
		return nil, err
	}
	infra, err := ca.sign()
	if err != nil {
		return nil, err
	}
	inventory := inventoryLine(ca.cert)
	files := []caFile{
		{caKeyName, encode("EC PRIVATE KEY", key), privateMode},
		{caPubName, encode("PUBLIC KEY", public), publicMode},
		{caCertName, ca.pem, publicMode},
		{caCRLName, crl, publicMode},
		{infraCRLName, infra, publicMode},
		{infraListName, nil, publicMode},
		{infraSerials, nil, publicMode},
		{serialName, formatSerial(ca.serial + 1), publicMode},
	}
	for _, c := range ca.issued {
		if !certname.MatchString(c.Subject.CommonName) {
			return nil, fmt.Errorf("making a cadir: %q is no certname", c.Subject.CommonName)
		}
		inventory = append(inventory, inventoryLine(c)...)
		// A later one of the same name replaces an earlier one.
		files = append(files, caFile{signedName + "/" + c.Subject.CommonName + ".pem", encode("CERTIFICATE", c.Raw), publicMode})
	}
	ca.onDisk = path
	return append(files, caFile{inventoryName, inventory, publicMode}), nil
}

// Revoke puts certificates on the CA's list; see CRL. Once the CA is in a cadir it is
// that one's Revoke that counts.
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
	if ca.onDisk != "" {
		return nil, ca.gone()
	}
	return ca.sign()
}

// sign signs the next CRL. Who calls it holds mu.
func (ca *CA) sign() ([]byte, error) {
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
