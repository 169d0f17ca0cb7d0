package trust

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"sync"
	"time"
)

// maxCRL bounds what is read of a CRL file, in bytes: a CA with a million
// revoked certificates has some 40 MB.
const maxCRL = 64 << 20

// glance is how long the file is believed to be as it was.
const glance = time.Second

// patience is how long a reading of the file is waited for. A file system that hangs
// must hold up no answer and no vote; what was known last then holds.
const patience = 100 * time.Millisecond

// crlFile is a file of CRLs that is read again when it changes. puppetserver and
// agents replace it by rename.
type crlFile struct {
	path string
	cas  []*x509.Certificate

	mu      sync.Mutex
	looked  time.Time
	reading chan struct{} // closed when the reading under way ends; nil if none is
	stamp   stamp
	list    list
	err     error
}

// list is what a file of CRLs says.
type list struct {
	serials map[string]bool     // revoked, by issuer and serial number
	numbers map[string]*big.Int // of the CRLs, by issuer (RFC 5280, section 5.2.3)
	next    time.Time
}

// older says which CRL of l is older than the one of the same issuer in known, or
// missing: who puts back an old file must not give back a right.
func (l *list) older(known *list) error {
	for issuer, n := range known.numbers {
		if m := l.numbers[issuer]; m == nil || m.Cmp(n) < 0 {
			return fmt.Errorf("its CRL number is %v and %v was known; the newer one holds until a restart", m, n)
		}
	}
	return nil
}

// stamp is what a file looks like from outside.
type stamp struct {
	size    int64
	changed time.Time
}

func openCRL(path string, cas []*x509.Certificate) (*crlFile, error) {
	f := &crlFile{path: path, cas: cas, looked: time.Now(), reading: make(chan struct{})}
	f.read(stamp{})
	if f.err != nil {
		return nil, f.err
	}
	return f, nil
}

// revoked reports whether any certificate of a chain is in the CRL of its issuer.
func (f *crlFile) revoked(chain []*x509.Certificate) bool {
	f.look()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range chain {
		if f.list.serials[string(c.RawIssuer)+c.SerialNumber.String()] {
			return true
		}
	}
	return false
}

func (f *crlFile) state() (time.Time, error) {
	f.look()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reading != nil && f.err == nil {
		return f.list.next, fmt.Errorf("CRL %s: it cannot be read in time", f.path)
	}
	return f.list.next, f.err
}

// look has the file read again if it may have changed, and waits a moment for that.
func (f *crlFile) look() {
	now := time.Now()
	f.mu.Lock()
	if since := now.Sub(f.looked); since >= 0 && since < glance {
		f.mu.Unlock()
		return
	}
	f.looked = now
	if f.reading == nil {
		f.reading = make(chan struct{})
		go f.read(f.stamp)
	}
	reading := f.reading
	f.mu.Unlock()
	select {
	case <-reading:
	case <-time.After(patience):
	}
}

// read takes what the file has if it is not as it was. What cannot be used is not:
// the revocations known stay, for nobody gets a right by a broken file.
func (f *crlFile) read(known stamp) {
	s, l, err := readChanged(f.path, f.cas, known)
	f.mu.Lock()
	defer f.mu.Unlock()
	if l != nil {
		if e := l.older(&f.list); e != nil {
			l, err = nil, fmt.Errorf("CRL %s: %w", f.path, e)
		}
	}
	if f.err = err; l != nil {
		f.list, f.stamp = *l, s
	}
	close(f.reading)
	f.reading = nil
}

// readChanged reads the file unless it is as it was; then there is no list.
func readChanged(path string, cas []*x509.Certificate, known stamp) (s stamp, l *list, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return s, nil, fmt.Errorf("CRL: %w", err)
	}
	if !fi.Mode().IsRegular() { // a pipe would be waited for
		return s, nil, fmt.Errorf("CRL %s: no regular file", path)
	}
	if s = (stamp{fi.Size(), fi.ModTime()}); s == known {
		return s, nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return s, nil, fmt.Errorf("CRL: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxCRL+1))
	if err == nil && len(data) > maxCRL {
		err = fmt.Errorf("larger than %d bytes", maxCRL)
	}
	if err == nil {
		l, err = parseCRLs(data, cas)
	}
	if err != nil {
		return s, nil, fmt.Errorf("CRL %s: %w", path, err)
	}
	return s, l, nil
}

// parseCRLs takes what the CA's certificates have signed; Puppet keeps a CRL of each
// of them in one file. next is the earliest of their next updates.
func parseCRLs(data []byte, cas []*x509.Certificate) (*list, error) {
	l := &list{serials: make(map[string]bool), numbers: make(map[string]*big.Int)}
	count := 0
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		count++
		crl, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", count, err)
		}
		if err := signedByOne(crl, cas); err != nil {
			return nil, fmt.Errorf("list %d, of %s: %w", count, crl.Issuer, err)
		}
		issuer := string(crl.RawIssuer)
		for _, e := range crl.RevokedCertificateEntries {
			l.serials[issuer+e.SerialNumber.String()] = true
		}
		if crl.Number != nil && (l.numbers[issuer] == nil || crl.Number.Cmp(l.numbers[issuer]) > 0) {
			l.numbers[issuer] = crl.Number
		}
		if l.next.IsZero() || crl.NextUpdate.Before(l.next) {
			l.next = crl.NextUpdate
		}
	}
	if count == 0 {
		return nil, errors.New("no PEM CRL in it")
	}
	return l, nil
}

func signedByOne(list *x509.RevocationList, cas []*x509.Certificate) error {
	err := errors.New("not by a certificate of the CA bundle")
	for _, ca := range cas {
		if issuedBy(list.RawIssuer, ca) {
			if err = list.CheckSignatureFrom(ca); err == nil {
				return nil
			}
		}
	}
	return err
}
