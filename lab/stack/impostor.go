//go:build linux

package stack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Impostor answers on a master's port 8140 in place of its puppetserver: to everything with
// one status, under a certificate that can be changed. Its methods may be called from any
// goroutine.
type Impostor struct {
	certificate atomic.Pointer[tls.Certificate]
	status      atomic.Int64
	server      *http.Server
	ended       chan struct{}
}

// NewImpostor takes a host's port 8140, which must be free. It shows the host's own
// certificate and says that it is running.
func (h *Host) NewImpostor(ctx context.Context) (*Impostor, error) {
	certificate, err := h.Certificate()
	if err != nil {
		return nil, err
	}
	i := &Impostor{ended: make(chan struct{})}
	i.Show(certificate)
	i.Answer(http.StatusOK)
	var listener net.Listener
	if err := h.Do(func() error {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(h.Addr.String(), "8140"))
		return err
	}); err != nil {
		return nil, fmt.Errorf("an impostor of %s: %w", h.Short, err)
	}
	i.server = &http.Server{
		Handler: i, ReadTimeout: requestTime, WriteTimeout: requestTime,
		ErrorLog: log.New(io.Discard, "", 0), // handshakes that fail are what it is for
		TLSConfig: &tls.Config{
			GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate.Load(), nil },
			SessionTicketsDisabled: true, // one would stand for an old certificate
		},
	}
	go func() {
		defer close(i.ended)
		_ = i.server.ServeTLS(listener, "", "") // ErrServerClosed
	}()
	return i, nil
}

// Show has new connections see another certificate.
func (i *Impostor) Show(certificate *tls.Certificate) { i.certificate.Store(certificate) }

// Answer sets the status of all answers.
func (i *Impostor) Answer(status int) { i.status.Store(int64(status)) }

// ServeHTTP answers as the status service does when all is well.
func (i *Impostor) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	status := int(i.status.Load())
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	if status == http.StatusOK {
		_, _ = io.WriteString(w, "running") // who asked may have gone
	}
}

// Close gives the port back and ends all connections.
func (i *Impostor) Close() error {
	err := i.server.Close()
	<-i.ended
	return err
}

// Certificate is a host's own, with its key.
func (h *Host) Certificate() (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(
		[]byte(h.Read("/var/lib/puppet/ssl/certs/"+h.FQDN()+".pem")),
		[]byte(h.Read("/var/lib/puppet/ssl/private_keys/"+h.FQDN()+".pem")))
	if err != nil {
		return nil, fmt.Errorf("the certificate of %s: %w", h.Short, err)
	}
	return &c, nil
}

// ForeignCertificate is for the host's name, and from a CA that nobody knows.
func (h *Host) ForeignCertificate() (*tls.Certificate, error) {
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of somebody else"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: h.FQDN()}, DNSNames: []string{h.FQDN()},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
