// Package cadirtest makes and uses Puppet CAs on disk as puppetserver does, and checks
// them with code that has nothing in common with cadir's. It is for tests only.
package cadirtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// CA is one whose keys are in memory. Its files are read for each signature, as
// puppetserver does it.
type CA struct {
	Dir     string
	Cert    *x509.Certificate // that signs
	Key     *ecdsa.PrivateKey
	chain   []*x509.Certificate // Cert first
	rootKey *ecdsa.PrivateKey
	leaf    *ecdsa.PrivateKey // of all certificates: to make one is what takes time
	revoked []x509.RevocationListEntry
	number  int64
}

// Options of a new CA.
type Options struct {
	Intermediate bool // it is under a root
	Name         string
}

// New writes a CA into dir, with a certificate of the CA host in it.
func New(t testing.TB, dir string, o Options) *CA {
	t.Helper()
	if o.Name == "" {
		o.Name = "Puppet CA: m1.example.net"
	}
	ca := &CA{Dir: dir, Key: newKey(t), leaf: newKey(t)}
	ca.rootKey = ca.Key
	if o.Intermediate {
		ca.rootKey = newKey(t)
		root := certify(t, "Puppet Root CA: "+o.Name, 1, ca.rootKey, nil, ca.rootKey)
		ca.Cert = certify(t, o.Name, 2, ca.Key, root, ca.rootKey)
		ca.chain = []*x509.Certificate{ca.Cert, root}
	} else {
		ca.Cert = certify(t, o.Name, 1, ca.Key, nil, ca.Key)
		ca.chain = []*x509.Certificate{ca.Cert}
	}
	for _, d := range []string{dir, ca.Path("signed"), ca.Path("requests")} {
		must(t, os.MkdirAll(d, 0o750))
	}
	ca.writeCA(t)
	ca.write(t, "inventory.txt", nil, 0o644)
	ca.write(t, "serial", []byte("0003"), 0o644)
	ca.write(t, "infra_inventory.txt", []byte("m1.example.net\n"), 0o644)
	ca.write(t, "infra_serials", nil, 0o644)
	ca.writeCRL(t)
	ca.Sign(t, "m1.example.net")
	return ca
}

// writeCA writes what is of the CA itself.
func (ca *CA) writeCA(t testing.TB) {
	var bundle []byte
	for _, c := range ca.chain {
		bundle = append(bundle, encode("CERTIFICATE", c.Raw)...)
	}
	ca.write(t, "ca_crt.pem", bundle, 0o644)
	der, err := x509.MarshalPKCS8PrivateKey(ca.Key)
	must(t, err)
	ca.write(t, "ca_key.pem", encode("PRIVATE KEY", der), 0o640)
	pub, err := x509.MarshalPKIXPublicKey(ca.Key.Public())
	must(t, err)
	ca.write(t, "ca_pub.pem", encode("PUBLIC KEY", pub), 0o644)
}

// Renew gives the CA a new certificate for its key, and nothing else.
func (ca *CA) Renew(t testing.TB) {
	ca.Cert = certify(t, ca.Cert.Subject.CommonName, 99, ca.Key, nil, ca.Key)
	ca.chain[0] = ca.Cert
	ca.writeCA(t)
}

// Path is of a file in the cadir.
func (ca *CA) Path(elem ...string) string {
	return filepath.Join(append([]string{ca.Dir}, elem...)...)
}

// Sign issues a certificate: serial, then inventory, then signed/, each at once.
func (ca *CA) Sign(t testing.TB, name string) uint64 {
	t.Helper()
	serial, err := ca.TrySign(name)
	must(t, err)
	return serial
}

// TrySign is Sign. It fails on a serial that its owner cannot read, as puppetserver does.
func (ca *CA) TrySign(name string) (uint64, error) {
	serial, err := ca.next()
	if err != nil {
		return 0, err
	}
	if err := ca.replace("serial", fmt.Appendf(nil, "%04X", serial+1), 0o644); err != nil {
		return 0, err
	}
	return serial, ca.Issue(name, serial)
}

// Issue writes a certificate with a serial that was taken.
func (ca *CA) Issue(name string, serial uint64) error {
	der, err := ca.certificate(name, serial)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	f, err := os.OpenFile(ca.Path("inventory.txt"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "0x%04X %sUTC %sUTC /CN=%s\n", serial, now.Format("2006-01-02T15:04:05"), now.AddDate(5, 0, 0).Format("2006-01-02T15:04:05"), name)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return ca.replace("signed/"+name+".pem", encode("CERTIFICATE", der), 0o644)
}

func (ca *CA) certificate(name string, serial uint64) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(5, 0, 0), DNSNames: []string{name},
	}, ca.Cert, ca.leaf.Public(), ca.Key)
}

// Fill issues n certificates at once, for what has to be large.
func (ca *CA) Fill(t testing.TB, n int) {
	t.Helper()
	serial, err := ca.next()
	must(t, err)
	var inventory strings.Builder
	old, err := os.ReadFile(ca.Path("inventory.txt"))
	must(t, err)
	inventory.Write(old)
	for i := range n {
		name := fmt.Sprintf("agent%06d.example.net", i)
		der, err := ca.certificate(name, serial)
		must(t, err)
		fmt.Fprintf(&inventory, "0x%04X 2026-01-01T00:00:00UTC 2031-01-01T00:00:00UTC /CN=%s\n", serial, name)
		must(t, os.WriteFile(ca.Path("signed", name+".pem"), encode("CERTIFICATE", der), 0o644))
		serial++
	}
	ca.write(t, "serial", fmt.Appendf(nil, "%04X", serial), 0o644)
	ca.write(t, "inventory.txt", []byte(inventory.String()), 0o644)
}

// next reads the next serial as the cadir's owner could.
func (ca *CA) next() (uint64, error) {
	path := ca.Path("serial")
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if fi.Mode().Perm()&0o400 == 0 {
		return 0, fmt.Errorf("FileNotFoundException: %s (Permission denied)", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(data)), 16, 32)
}

// Revoke puts serials on the CRL.
func (ca *CA) Revoke(t testing.TB, serials ...uint64) {
	t.Helper()
	for _, n := range serials {
		ca.revoked = append(ca.revoked, x509.RevocationListEntry{SerialNumber: new(big.Int).SetUint64(n), RevocationTime: time.Now()})
	}
	ca.writeCRL(t)
}

// Clean revokes a certificate and removes it.
func (ca *CA) Clean(t testing.TB, name string, serial uint64) {
	t.Helper()
	ca.Revoke(t, serial)
	must(t, os.Remove(ca.Path("signed", name+".pem")))
}

func (ca *CA) writeCRL(t testing.TB) {
	ca.number++
	out := ca.CRL(t, ca.number, ca.revoked)
	if len(ca.chain) > 1 {
		out = append(out, list(t, ca.chain[1], ca.rootKey, 1, nil)...)
	}
	ca.write(t, "ca_crl.pem", out, 0o644)
	ca.write(t, "infra_crl.pem", out, 0o644)
}

// CRL signs a list, and writes it nowhere.
func (ca *CA) CRL(t testing.TB, number int64, revoked []x509.RevocationListEntry) []byte {
	return list(t, ca.Cert, ca.Key, number, revoked)
}

func list(t testing.TB, by *x509.Certificate, key *ecdsa.PrivateKey, number int64, revoked []x509.RevocationListEntry) []byte {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Second), NextUpdate: time.Now().AddDate(5, 0, 0), RevokedCertificateEntries: revoked,
	}, by, key)
	must(t, err)
	return encode("X509 CRL", der)
}

func (ca *CA) write(t testing.TB, name string, data []byte, mode os.FileMode) {
	t.Helper()
	must(t, ca.replace(name, data, mode))
}

// replace is puppetserver's atomic-write.
func (ca *CA) replace(name string, data []byte, mode os.FileMode) error {
	path := ca.Path(name)
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"*tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(f.Name(), mode)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func certify(t testing.TB, name string, serial int64, key *ecdsa.PrivateKey, by *x509.Certificate, byKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	must(t, err)
	id := sha1.Sum(point)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id[:],
		NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(15, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	if by == nil {
		by = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), byKey)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
