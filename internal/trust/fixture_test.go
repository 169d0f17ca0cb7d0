package trust_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// issuer is a CA, a root or an intermediate one, as Puppet 6 and later have.
type issuer struct {
	t       testing.TB
	cert    *x509.Certificate
	key     crypto.Signer
	lists   int64
	revoked []x509.RevocationListEntry
}

var serials int64 = 1

func newIssuer(t testing.TB, name string, parent *issuer) *issuer {
	t.Helper()
	return issuerOf(t, name, ecdsaKey(t), parent)
}

// fixedIssuer has the same key in each process: a fuzzer has many.
func fixedIssuer(t testing.TB) *issuer {
	t.Helper()
	return issuerOf(t, "Puppet CA: m1.example.net", fixedKey(0), nil)
}

func fixedKey(n byte) crypto.Signer {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func issuerOf(t testing.TB, name string, key crypto.Signer, parent *issuer) *issuer {
	t.Helper()
	serials++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(15, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	i := &issuer{t: t, key: key}
	by, byKey := template, crypto.Signer(key)
	if parent != nil {
		by, byKey = parent.cert, parent.key
	}
	i.cert = create(t, template, by, key.Public(), byKey)
	return i
}

func create(t testing.TB, template, parent *x509.Certificate, public any, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func ecdsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ed25519Key(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes an identity that is good from one time to another; nil stands for an
// ECDSA key.
func (i *issuer) issue(name string, key crypto.Signer, from, to time.Time) *trust.Identity {
	i.t.Helper()
	if key == nil {
		key = ecdsaKey(i.t)
	}
	serials++
	leaf := create(i.t, &x509.Certificate{
		SerialNumber: big.NewInt(serials), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}, i.cert, key.Public(), i.key)
	id, err := trust.NewIdentity(tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key})
	if err != nil {
		i.t.Fatal(err)
	}
	return id
}

// good is an identity that is good today.
func (i *issuer) good(name string, key crypto.Signer) *trust.Identity {
	i.t.Helper()
	return i.issue(name, key, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
}

func (i *issuer) revoke(c *x509.Certificate) {
	i.revoked = append(i.revoked, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
}

// crl is a new list, in PEM.
func (i *issuer) crl() []byte {
	i.t.Helper()
	i.lists++
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(i.lists), ThisUpdate: time.Now(), NextUpdate: time.Now().AddDate(0, 0, int(30+i.lists)), RevokedCertificateEntries: i.revoked,
	}, i.cert, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func (i *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

// files are a CA's, as puppetserver keeps them.
type files struct {
	t       testing.TB
	ca, crl string // paths
}

func newFiles(t testing.TB, ca, crl []byte) *files {
	t.Helper()
	dir := t.TempDir()
	f := &files{t, filepath.Join(dir, "ca.pem"), filepath.Join(dir, "crl.pem")}
	if err := os.WriteFile(f.ca, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	f.setCRL(crl)
	return f
}

// setCRL replaces the file by rename, as puppetserver and agents do.
func (f *files) setCRL(data []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.crl+".new", data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.crl+".new", f.crl); err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) open() *trust.Authority {
	f.t.Helper()
	a, err := trust.Open(f.ca, f.crl)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}
