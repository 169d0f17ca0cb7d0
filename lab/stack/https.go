//go:build linux

package stack

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// requestTime is how long one HTTPS request may take.
const requestTime = 10 * time.Second

// Requester asks masters over HTTPS, from a host, as an agent does.
type Requester struct {
	From *Host
	// Certificate is the client's; nil: none.
	Certificate *tls.Certificate
	// ContentType is that of bodies; "": text/plain.
	ContentType string
}

// Ask sends a request to a host under a name, over a new connection, and returns the
// status and the body. No answer is an error.
func (r Requester) Ask(ctx context.Context, to *Host, port, name, method, path, body string) (status int, answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(r.From.Read("/var/lib/puppet/ssl/certs/ca.pem"))) {
		return 0, "", fmt.Errorf("%s has no ca.pem", r.From.Short)
	}
	config := &tls.Config{ServerName: name, RootCAs: roots}
	if r.Certificate != nil {
		config.Certificates = []tls.Certificate{*r.Certificate}
	}
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: config,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return r.From.Dial(ctx, network, net.JoinHostPort(to.Addr.String(), port))
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+net.JoinHostPort(name, port)+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", cmp.Or(r.ContentType, "text/plain"))
	req.Header.Set("Accept", "text/plain, application/json")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(data), err
}

// errNotSigned is that a CA took a request and signed nothing.
var errNotSigned = errors.New("not signed")

// Request is a signing request that is ready to be sent.
type Request struct {
	Certname string
	csr      string
	key      *rsa.PrivateKey
}

// NewRequests makes signing requests. They share one key: making one is what takes long.
func NewRequests(certnames ...string) (all []Request, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	for _, name := range certnames {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
		if err != nil {
			return nil, err
		}
		var csr bytes.Buffer
		if err := pem.Encode(&csr, &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}); err != nil {
			return nil, err
		}
		all = append(all, Request{name, csr.String(), key})
	}
	return all, nil
}

// Sign has the CA on a host, addressed by a name, sign a new certificate, and returns it
// with its key. It is what `puppet ssl bootstrap` asks for, without Ruby's start.
func (r Requester) Sign(ctx context.Context, ca *Host, name, certname string) (*tls.Certificate, error) {
	all, err := NewRequests(certname)
	if err != nil {
		return nil, err
	}
	return r.SignRequest(ctx, ca, name, all[0])
}

// SignRequest is Sign with what was prepared.
func (r Requester) SignRequest(ctx context.Context, ca *Host, name string, q Request) (*tls.Certificate, error) {
	status, body, err := r.Ask(ctx, ca, "8140", name, http.MethodPut, "/puppet-ca/v1/certificate_request/"+q.Certname, q.csr)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%w: the request was answered %d: %.120s", errNotSigned, status, body)
	}
	status, body, err = r.Ask(ctx, ca, "8140", name, http.MethodGet, "/puppet-ca/v1/certificate/"+q.Certname, "")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%w: the certificate was answered %d: %.120s", errNotSigned, status, body)
	}
	certificate, err := tls.X509KeyPair([]byte(body), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(q.key)}))
	return &certificate, err
}
