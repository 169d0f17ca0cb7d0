package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// maxAnswer bounds what is read of an answer of the CA, in bytes.
const maxAnswer = 1 << 20

// revoke has the camaster's CA make a certificate worthless, as `puppetserver ca
// revoke` on that host does. Nothing takes that back. Members carry the CRL to the
// masters; to the nodes and the operator, who have no agent here, it is brought.
func (l layout) revoke(ctx context.Context, certname string) (string, error) {
	host, err := l.currentCamaster(ctx)
	if err != nil {
		return "", err
	}
	m, ok := l.masterOf(host)
	if !ok {
		return "", fmt.Errorf("the camaster is %s, which is none of the playground's masters", host)
	}
	client, err := l.caClient(m)
	if err != nil {
		return "", err
	}
	defer client.CloseIdleConnections()
	ask := func(method, path, body string) (int, []byte, error) {
		url := fmt.Sprintf("https://%s:%d/puppet-ca/v1/%s", m.host, m.address.Port(), path)
		request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		response, err := client.Do(request)
		if err != nil {
			return 0, nil, err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		return response.StatusCode, answer, err
	}
	code, answer, err := ask(http.MethodPut, "certificate_status/"+certname, `{"desired_state":"revoked"}`)
	switch {
	case err != nil:
		return "", fmt.Errorf("asking the CA on %s: %w", m.name, err)
	case code == http.StatusNotFound:
		return "", fmt.Errorf("no certificate was issued to %q: certnames are as %s, or m1.%s", certname, operator, zoneName)
	case code != http.StatusNoContent:
		return "", fmt.Errorf("asking the CA on %s: HTTP %d: %s", m.name, code, answer)
	}
	code, crl, err := ask(http.MethodGet, "certificate_revocation_list/ca", "")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", code, crl)
	}
	if err != nil {
		return "", fmt.Errorf("fetching the CRL from %s: %w", m.name, err)
	}
	return m.name, publishCRL(l.crlPath(), crl)
}

// currentCamaster is the host that the register names, as any node says. Without members
// the CA stays where it was founded, whatever DNS says.
func (l layout) currentCamaster(ctx context.Context) (string, error) {
	if !l.members {
		return l.camaster, nil
	}
	var errs []error
	for _, n := range l.nodes {
		client, err := admin.NewClient("unix://"+l.socketPath(n.name), admin.ClientOptions{Timeout: attempt})
		if err != nil {
			return "", err
		}
		c, err := client.Camaster(ctx)
		client.Close()
		if err == nil {
			return c.Host, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("finding the camaster: %w", errors.Join(errs...))
}

func (l layout) masterOf(host string) (master, bool) {
	for _, m := range l.masters {
		if m.host == strings.TrimSuffix(host, ".") {
			return m, true
		}
	}
	return master{}, false
}

// caClient asks a master with the master's own certificate, which auth.conf lets
// revoke.
func (l layout) caClient(m master) (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(l.certPath(m.name), l.keyPath(m.name))
	if err != nil {
		return nil, fmt.Errorf("loading the certificate of %s: %w", m.name, err)
	}
	pem, err := os.ReadFile(l.caPath())
	if err != nil {
		return nil, fmt.Errorf("reading the CA certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Timeout: 2 * attempt, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, m.address.String())
		},
	}}, nil
}
