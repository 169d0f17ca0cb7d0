package stub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// certname is what puppetserver takes for one: no path gets out of signed/ with it.
var certname = regexp.MustCompile(`^[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?$`)

// maxSerial is where puppetserver's serial ends: an Integer of Java.
const maxSerial = 1<<31 - 1

// refusal is an answer of the CA that is not success.
type refusal struct {
	code int
	body string
}

func (r *refusal) Error() string { return r.body }

// NewCSR makes a key and a certificate request for a certname and further names.
func NewCSR(name string, dnsNames ...string) (csrPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the key of %q: %w", name, err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: dnsNames}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the certificate request of %q: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key of %q: %w", name, err)
	}
	return encode("CERTIFICATE REQUEST", csr), encode("PRIVATE KEY", der), nil
}

// Submit takes a certificate request and signs it, as PUT certificate_request/NAME with
// `autosign = true`. If it cannot be signed it stays under requests/.
func (d *CADir) Submit(name string, csrPEM []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !certname.MatchString(name) {
		return &refusal{http.StatusBadRequest, fmt.Sprintf("Subject %q is no certname", name)}
	}
	if _, err := parseCSR(name, csrPEM); err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	if d.exists(signedName, name+".pem") {
		return &refusal{http.StatusBadRequest, name + " already has a signed certificate; ignoring certificate request"}
	}
	request := requestsName + "/" + name + ".pem"
	if d.exists(request) {
		return &refusal{http.StatusBadRequest, name + " already has a requested certificate; ignoring certificate request"}
	}
	if err := d.replace(request, csrPEM, publicMode); err != nil {
		return err
	}
	return d.signRequest(name)
}

// Sign signs a request that waits, as `puppetserver ca sign` has it done.
func (d *CADir) Sign(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !certname.MatchString(name) || !d.exists(requestsName, name+".pem") {
		return &refusal{http.StatusNotFound, "Could not find certificate request for " + name}
	}
	return d.signRequest(name)
}

func parseCSR(name string, csrPEM []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("no certificate request in it")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if csr.Subject.CommonName != name {
		return nil, fmt.Errorf("instance name %q does not match requested key %q", csr.Subject.CommonName, name)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the CSR contains a public key that does not correspond to the signing key: %w", err)
	}
	return csr, nil
}

// signRequest signs what is under requests/. The order is puppetserver's: serial,
// inventory, signed, and then the request goes. Who is killed in between has lost a
// number, and never gives one twice.
func (d *CADir) signRequest(name string) error {
	request := d.path(requestsName, name+".pem")
	content, err := d.read(requestsName, name+".pem")
	if err != nil {
		return err
	}
	csr, err := parseCSR(name, content)
	if err != nil {
		return fmt.Errorf("%s: %w", request, err)
	}
	cert, key, err := d.keys()
	if err != nil {
		return err
	}
	serial, err := d.nextSerial()
	if err != nil {
		return err
	}
	names := []string{name}
	for _, n := range csr.DNSNames { // allow-subject-alt-names: true
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().AddDate(0, 0, -1),
		NotAfter:              time.Now().AddDate(5, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              names,
	}, cert, csr.PublicKey, key)
	if err != nil {
		return fmt.Errorf("signing the certificate of %s: %w", name, err)
	}
	issued, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("reading back the certificate of %s: %w", name, err)
	}
	inventory, err := d.read(inventoryName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.replace(inventoryName, append(inventory, inventoryLine(issued)...), publicMode); err != nil {
		return err
	}
	if err := d.replace(signedName+"/"+name+".pem", encode("CERTIFICATE", der), publicMode); err != nil {
		return err
	}
	return os.Remove(request)
}

// nextSerial takes the number in the file, and leaves the next one there.
func (d *CADir) nextSerial() (int64, error) {
	content, err := d.read(serialName)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 16, 64)
	if err != nil || n < 1 || n >= maxSerial {
		return 0, fmt.Errorf("NumberFormatException: For input string: %q", content)
	}
	return n, d.replace(serialName, formatSerial(n+1), publicMode)
}

func formatSerial(n int64) []byte { return fmt.Appendf(nil, "%04X", n) }

// inventoryLine is as "0x002F 2026-07-01T10:00:00UTC 2031-07-01T10:00:00UTC /CN=NAME".
func inventoryLine(c *x509.Certificate) []byte {
	const format = "2006-01-02T15:04:05UTC"
	return fmt.Appendf(nil, "0x%04X %s %s /CN=%s\n", c.SerialNumber, c.NotBefore.UTC().Format(format), c.NotAfter.UTC().Format(format), c.Subject.CommonName)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Revoke puts every certificate that the inventory and signed/ know of a certname on the
// CRL, as PUT certificate_status/NAME {"desired_state":"revoked"}. A sealed CA does that
// too: it takes no serial for it.
func (d *CADir) Revoke(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !certname.MatchString(name) {
		return &refusal{http.StatusNotFound, "Invalid certificate subject."}
	}
	serials, err := d.serialsOf(name)
	if err != nil {
		return err
	}
	if len(serials) == 0 {
		return &refusal{http.StatusNotFound, "Invalid certificate subject."}
	}
	content, err := d.read(caCRLName)
	if err != nil {
		return err
	}
	cert, key, err := d.keys()
	if err != nil {
		return err
	}
	var out []byte
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", d.path(caCRLName), err)
		}
		der := block.Bytes
		// A chain's other CRLs are of the CAs above, and stay.
		if list.CheckSignatureFrom(cert) == nil {
			der, err = x509.CreateRevocationList(rand.Reader, listWith(list, serials), cert, key)
			if err != nil {
				return fmt.Errorf("signing a CRL: %w", err)
			}
		}
		out = append(out, encode("X509 CRL", der)...)
	}
	return d.replace(caCRLName, out, publicMode)
}

// listWith is the list that comes after another, with more certificates on it.
func listWith(list *x509.RevocationList, serials []*big.Int) *x509.RevocationList {
	now := time.Now()
	next := &x509.RevocationList{
		Number:                    new(big.Int).Add(list.Number, big.NewInt(1)),
		ThisUpdate:                now.AddDate(0, 0, -1), // as the CA's certificate, for clocks that differ
		NextUpdate:                now.AddDate(5, 0, 0),
		RevokedCertificateEntries: list.RevokedCertificateEntries,
	}
	for _, n := range serials {
		known := func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(n) == 0 }
		if !slices.ContainsFunc(next.RevokedCertificateEntries, known) {
			next.RevokedCertificateEntries = append(next.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: now})
		}
	}
	return next
}

func (d *CADir) serialsOf(name string) (serials []*big.Int, err error) {
	inventory, err := d.read(inventoryName)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(inventory)) {
		number, subject, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && strings.HasSuffix(subject, " /CN="+name) {
			if n, ok := new(big.Int).SetString(number, 0); ok {
				serials = append(serials, n)
			}
		}
	}
	if content, err := d.read(signedName, name+".pem"); err == nil {
		if block, _ := pem.Decode(content); block != nil {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil {
				serials = append(serials, c.SerialNumber)
			}
		}
	}
	return serials, nil
}

// Clean takes the certificate and the request of a certname away, as DELETE
// certificate_status/NAME; `puppetserver ca clean` revokes it before.
func (d *CADir) Clean(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !certname.MatchString(name) {
		return &refusal{http.StatusNotFound, "Invalid certificate subject."}
	}
	cleaned := false
	for _, dir := range []string{signedName, requestsName} {
		err := os.Remove(d.path(dir, name+".pem"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		cleaned = cleaned || err == nil
	}
	if !cleaned {
		return &refusal{http.StatusNotFound, "Invalid certificate subject."}
	}
	return nil
}
