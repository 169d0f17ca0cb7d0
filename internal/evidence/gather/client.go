package gather

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of what a local service may answer. The metrics of a puppetserver with a
// hundred JRubies, all borrowed, are some 100 KB.
const (
	maxBody   = 4 << 20 // bytes
	maxHeader = 64 << 10
	maxPEM    = 8 << 20 // bytes of a file of certificates
)

// client asks the host's own services, with the host's certificate, and keeps the
// connections. It follows the files: agents renew certificates.
type client struct {
	certname        string
	cert, key, root string // paths

	mu    sync.Mutex
	stamp [3]stamp
	http  *http.Client
	err   error // why the files cannot be used
	noID  error // why there is no certificate of one's own
}

func newClient(c Config) *client {
	return &client{certname: c.Certname, cert: c.Cert, key: c.Key, root: c.Authority}
}

// get asks for a path of a service. Its errors are short and the same each time.
func (c *client) get(ctx context.Context, base, path string) (status int, body []byte, err error) {
	h, err := c.current()
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json, text/plain")
	resp, err := h.Do(req)
	if err != nil {
		return 0, nil, reason(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return 0, nil, reason(err)
	}
	if len(body) > maxBody {
		return 0, nil, fmt.Errorf("an answer of more than %d bytes", maxBody)
	}
	return resp.StatusCode, body, nil
}

// identity says why there is no certificate to show, nil if there is one.
func (c *client) identity() error {
	if _, err := c.current(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.noID
}

// current returns a client for the files as they are now.
func (c *client) current() (*http.Client, error) {
	now := [3]stamp{stampOf(c.root), stampOf(c.cert), stampOf(c.key)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now != c.stamp || c.http == nil && c.err == nil {
		if c.http != nil {
			c.http.CloseIdleConnections()
		}
		c.stamp = now
		c.http, c.err = c.open()
	}
	return c.http, c.err
}

func (c *client) open() (*http.Client, error) {
	pem, err := readLimited(c.root, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CA's certificates: there is none in %s", c.root)
	}
	conf := &tls.Config{RootCAs: pool, ServerName: c.certname, MinVersion: tls.VersionTLS12}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if c.noID = err; err == nil { // the status service does without
		conf.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // these are services of this host
			DialContext:            (&net.Dialer{Timeout: deepTimeout}).DialContext,
			TLSClientConfig:        conf,
			MaxIdleConnsPerHost:    3,
			MaxResponseHeaderBytes: maxHeader,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// errLate is that there was no answer in time.
var errLate = errors.New("no answer in time")

// reason is an error without what differs from one time to the next, such as the port
// of this end: evidence that says the same is not sent again.
func reason(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return errLate
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.As(err, &cert):
		return fmt.Errorf("its certificate: %w", cert.Err)
	case errors.As(err, &dns):
		return fmt.Errorf("its name %s: %s", dns.Name, dns.Err)
	case errors.As(err, &op):
		return op.Err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection ended")
	}
	return err
}

// stamp is what a file looks like from outside.
type stamp struct {
	size    int64
	changed time.Time
	inode   uint64
}

// stampOf is zero for a file that cannot be seen.
func stampOf(path string) stamp {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	s := stamp{size: fi.Size(), changed: fi.ModTime()}
	if sys, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// readLimited reads a regular file; a pipe would be waited for.
func readLimited(path string, most int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, nil
}

// short is the beginning of an answer, on one line, for people.
func short(body []byte) string {
	const most = 120
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(body[:min(len(body), 4*most)]), "?")), " ")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
