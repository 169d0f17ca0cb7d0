package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"time"
)

// ServerTLS has clients show a certificate of the CA that is not revoked. The identity
// is asked for with each connection, so that it can be renewed. See also [Client]: a
// connection outlives a revocation.
func (a *Authority) ServerTLS(identity func() *Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The chain is verified below, with the CRL, and with errors for people.
		ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &identity().Certificate, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error { return a.verifyPeer(s, x509.ExtKeyUsageClientAuth) },
	}
}

// ClientTLS connects to the host whose certificate has a name, and shows the identity's.
func (a *Authority) ClientTLS(name string, identity func() *Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: name,
		RootCAs:    a.Pool(),
		VerifyConnection: func(s tls.ConnectionState) error {
			return a.verifyPeer(s, x509.ExtKeyUsageServerAuth)
		},
		// Not Certificates: a client would leave out one whose issuer the server does
		// not announce, and the server could not say what is wrong with it.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &identity().Certificate, nil
		},
	}
}

func (a *Authority) verifyPeer(s tls.ConnectionState, use x509.ExtKeyUsage) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("there is no certificate")
	}
	return a.Verify(s.PeerCertificates[0], s.PeerCertificates[1:], time.Now(), use)
}

// Client is the certname of who sent a request over mutual TLS, if it is still good:
// a connection may be older than a revocation.
func (a *Authority) Client(r *http.Request) (certname string, err error) {
	if r.TLS == nil {
		return "", errors.New("not over TLS")
	}
	if err := a.verifyPeer(*r.TLS, x509.ExtKeyUsageClientAuth); err != nil {
		return "", err
	}
	return Certname(r.TLS.PeerCertificates[0]), nil
}
