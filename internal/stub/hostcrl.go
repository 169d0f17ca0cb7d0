package stub

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// hostCRL is by what a master goes to let a client in: the CA's certificate and the
// host's own copy of the CRL. Both are looked at with each new connection, so that a
// file that was replaced counts from then on; connections that are open stay, as in
// Jetty. The zero path means that revocations are not looked at.
type hostCRL struct {
	caFile, crlFile string

	mu       sync.Mutex
	ca, crl  stamp
	pool     *x509.CertPool
	revoked  map[string]bool // serial numbers, decimal
	problems error
}

// stamp is what a file looks like from outside.
type stamp struct {
	size    int64
	changed time.Time
	inode   uint64
}

func stampOf(path string) (stamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	s := stamp{size: fi.Size(), changed: fi.ModTime()}
	if sys, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.inode = uint64(sys.Ino)
	}
	return s, nil
}

// verify refuses a client that shows a certificate that is no good; one without is
// let in, and may do less.
func (h *hostCRL) verify(c tls.ConnectionState) error {
	if h == nil || len(c.PeerCertificates) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	if h.pool == nil {
		return h.problems
	}
	leaf, rest := c.PeerCertificates[0], x509.NewCertPool()
	for _, cert := range c.PeerCertificates[1:] {
		rest.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: h.pool, Intermediates: rest, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	if h.revoked[leaf.SerialNumber.String()] {
		return fmt.Errorf("the certificate of %s (serial %s) is revoked", leaf.Subject.CommonName, leaf.SerialNumber)
	}
	return nil
}

// refresh reads what has changed. What cannot be used is not, and what was known
// holds.
func (h *hostCRL) refresh() {
	if s, err := stampOf(h.caFile); err != nil {
		h.problems = fmt.Errorf("the CA's certificate: %w", err)
	} else if s != h.ca {
		pool := x509.NewCertPool()
		if content, err := os.ReadFile(h.caFile); err == nil && pool.AppendCertsFromPEM(content) {
			h.ca, h.pool = s, pool
		} else {
			h.problems = errors.Join(fmt.Errorf("%s: no certificate in it", h.caFile), err)
		}
	}
	if h.crlFile == "" {
		return
	}
	if s, err := stampOf(h.crlFile); err == nil && s != h.crl {
		content, err := os.ReadFile(h.crlFile)
		if err != nil {
			return
		}
		if lists, err := parseCRLs(content); err == nil {
			h.crl, h.revoked = s, make(map[string]bool)
			for _, list := range lists {
				for _, entry := range list.RevokedCertificateEntries {
					h.revoked[entry.SerialNumber.String()] = true
				}
			}
		}
	}
}

// parseCRLs reads the CRLs of a file, which are several where the CA is an
// intermediate one.
func parseCRLs(content []byte) (lists []*x509.RevocationList, err error) {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CRL %d: %w", len(lists)+1, err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, errors.New("no CRL in it")
	}
	return lists, nil
}

// client is who asks, as the handshake has verified it; nil without a certificate.
func (m *Master) client(r *http.Request) *x509.Certificate {
	if m.hostCRL == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

// crlGlance is how often ca_crl.pem is looked at; the real one is woken by inotify.
const crlGlance = 100 * time.Millisecond

// copyCRLs keeps the host CRL as ca_crl.pem is, where the CA service is on, until the
// end.
func (m *Master) copyCRLs() {
	ticker := time.NewTicker(crlGlance)
	defer ticker.Stop()
	var last stamp
	for {
		if s, err := stampOf(m.cadir.path(caCRLName)); err == nil && s != last && m.caIsOn() {
			if m.copyCRL() == nil {
				last = s
			}
		}
		select {
		case <-ticker.C:
		case <-m.closing:
			return
		}
	}
}

func (m *Master) copyCRL() error {
	content, err := m.cadir.read(caCRLName)
	if err != nil {
		return err
	}
	if _, err := parseCRLs(content); err != nil {
		return err
	}
	if now, err := os.ReadFile(m.hostCRL.crlFile); err == nil && bytes.Equal(now, content) {
		return nil
	}
	return replace(m.hostCRL.crlFile, content, publicMode, nil)
}
