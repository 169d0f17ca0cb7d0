package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

const (
	defaultTimeout = 10 * time.Second
	// maxAnswer bounds what a client reads of one answer. Status grows with masters
	// times observers: 10 000 masters seen by 10 nodes are about 30 MB.
	maxAnswer = 256 << 20
)

// ClientOptions says as whom and for how long a [Client] asks.
type ClientOptions struct {
	// Identity is the client's certificate. Without one an https server refuses
	// everything, and says so.
	Identity *trust.Identity
	// Authority is whom an https server's certificate must be of. It is required
	// there, and not looked at for a unix socket.
	Authority *trust.Authority
	// Timeout bounds each call, for Events only the time until the stream begins.
	// The default is 10 s.
	Timeout time.Duration
}

// Client asks one server. It is safe for concurrent use.
//
// Its errors are a [*Fault] for what the server said, an [*UnreachableError] where
// no answer came, and the context's own where that was cancelled.
type Client struct {
	server  string // as given, for messages
	base    *url.URL
	http    *http.Client
	timeout time.Duration
	silence time.Duration // of an event stream, until it is taken for dead
}

// NewClient returns a client of the server at "unix:///PATH" or
// "https://HOST[:PORT]"; the port is 8153 unless given. It does not connect yet.
func NewClient(server string, o ClientOptions) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("server %q is not a URL: want unix:///PATH or https://HOST:PORT", server)
	}
	transport := &http.Transport{
		// No proxy: what the proxy would see is the operator's own network.
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    defaultTimeout,
		MaxResponseHeaderBytes: 64 << 10,
	}
	c := &Client{server: server, timeout: o.Timeout, silence: silence}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && len(u.Path) > 1 && u.RawQuery == "":
		path := u.Path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		c.base = &url.URL{Scheme: "http", Host: "localhost"}
	case u.Scheme == "https" && u.Hostname() != "" && (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.User == nil:
		if o.Authority == nil {
			return nil, fmt.Errorf("server %q: a CA certificate is needed to know it by", server)
		}
		transport.TLSClientConfig = clientTLS(u.Hostname(), o)
		port := u.Port()
		if port == "" {
			port = "8153"
		}
		c.base = &url.URL{Scheme: "https", Host: net.JoinHostPort(u.Hostname(), port)}
	default:
		return nil, fmt.Errorf("server %q: want unix:///PATH or https://HOST:PORT", server)
	}
	c.http = &http.Client{
		Transport: transport,
		// The API never redirects: whoever does is something else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// clientTLS verifies the server's certificate against the authority, with its CRL,
// and the host name of the URL.
func clientTLS(host string, o ClientOptions) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// The chain, the time and the name are crypto/tls's own work; what it cannot
		// know is the CRL.
		RootCAs:          o.Authority.Pool(),
		VerifyConnection: notRevoked(o.Authority),
	}
	if o.Identity != nil {
		// Not Certificates: a client would leave out a certificate whose issuer the
		// server does not announce, and the server could not say what is wrong with it.
		certificate := o.Identity.Certificate
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &certificate, nil
		}
	}
	return config
}

// Close closes the connections that are not in use. The client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Server is the server as it was given.
func (c *Client) Server() string { return c.server }

// Status returns what the server's node believes of everything.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Masters returns every Puppet server with its evidence.
func (c *Client) Masters(ctx context.Context) ([]Master, error) {
	m, err := call[Masters](ctx, c, http.MethodGet, "/v1/masters", nil)
	return m.Masters, err
}

// Master returns one Puppet server.
func (c *Client) Master(ctx context.Context, host string) (Master, error) {
	return call[Master](ctx, c, http.MethodGet, "/v1/masters/"+url.PathEscape(host), nil)
}

// Plan says what a failover or switchover to a host would do.
func (c *Client) Plan(ctx context.Context, kind Kind, to string) (Plan, error) {
	return call[Plan](ctx, c, http.MethodGet, "/v1/plan?"+url.Values{"kind": {string(kind)}, "to": {to}}.Encode(), nil)
}

// Rejoin asks the member on a host to make it a standby.
func (c *Client) Rejoin(ctx context.Context, host string) (Rejoin, error) {
	return call[Rejoin](ctx, c, http.MethodPost, "/v1/masters/"+url.PathEscape(host)+"/rejoin", nil)
}

// Zones returns the domain of every datacenter.
func (c *Client) Zones(ctx context.Context) ([]Zone, error) {
	z, err := call[Zones](ctx, c, http.MethodGet, "/v1/zones", nil)
	return z.Zones, err
}

// Zone returns the domain of one datacenter as the server's node answers it.
func (c *Client) Zone(ctx context.Context, datacenter string) (Zone, error) {
	return call[Zone](ctx, c, http.MethodGet, "/v1/zones/"+url.PathEscape(datacenter), nil)
}

// Camaster returns the register that says who is camaster.
func (c *Client) Camaster(ctx context.Context) (Camaster, error) {
	return call[Camaster](ctx, c, http.MethodGet, "/v1/camaster", nil)
}

// History returns the writes of a key, of all if it is "", the newest first; at
// most limit of them if that is above 0.
func (c *Client) History(ctx context.Context, key string, limit int) ([]Write, error) {
	query := url.Values{}
	if key != "" {
		query.Set("key", key)
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	path := "/v1/history"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	h, err := call[History](ctx, c, http.MethodGet, path, nil)
	return h.Writes, err
}

// SetCamaster writes the camaster register.
func (c *Client) SetCamaster(ctx context.Context, set SetCamaster) (Result, error) {
	return call[Result](ctx, c, http.MethodPut, "/v1/camaster", set)
}

// Drain writes that a master gets no new work.
func (c *Client) Drain(ctx context.Context, host string, set SetDrain) (Result, error) {
	return call[Result](ctx, c, http.MethodPut, "/v1/drains/"+url.PathEscape(host), set)
}

// Undrain ends a drain. The reason may be empty.
func (c *Client) Undrain(ctx context.Context, host, reason string) (Result, error) {
	path := "/v1/drains/" + url.PathEscape(host)
	if reason != "" {
		path += "?" + url.Values{"reason": {reason}}.Encode()
	}
	return call[Result](ctx, c, http.MethodDelete, path, nil)
}

// Cluster returns the members of the gossip pool.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodGet, "/v1/cluster", nil)
}

// Keys returns the gossip key ring of every node, without the keys themselves.
func (c *Client) Keys(ctx context.Context) (Keys, error) {
	return call[Keys](ctx, c, http.MethodGet, "/v1/keys", nil)
}

// AddKey makes a gossip key and adds it on every node.
func (c *Client) AddKey(ctx context.Context) (KeyResult, error) {
	return call[KeyResult](ctx, c, http.MethodPost, "/v1/keys", nil)
}

// UseKey makes a key the one that encrypts.
func (c *Client) UseKey(ctx context.Context, id string) (KeyResult, error) {
	return call[KeyResult](ctx, c, http.MethodPost, "/v1/keys/"+url.PathEscape(id)+"/use", nil)
}

// RemoveKey takes a key out of every ring.
func (c *Client) RemoveKey(ctx context.Context, id string) (KeyResult, error) {
	return call[KeyResult](ctx, c, http.MethodDelete, "/v1/keys/"+url.PathEscape(id), nil)
}

// call makes one request and decodes its answer.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	response, err := c.send(ctx, method, path, body, "application/json")
	if err != nil {
		return answer, c.explain(ctx, method, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return answer, c.explain(ctx, method, err)
	}
	if len(data) > maxAnswer {
		return answer, fmt.Errorf("%s: the answer to %s %s is over %d MB", c.server, method, path, maxAnswer>>20)
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("%s: the answer to %s %s cannot be read: %w", c.server, method, path, err)
	}
	return answer, nil
}

// send returns a response of status 200 and the wanted media type; whatever else
// comes is an error.
func (c *Client) send(ctx context.Context, method, path string, body any, accept string) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the body of %s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, reader)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	request.Header.Set("Accept", accept+", "+mediaProblem)
	if reader != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.StatusCode == http.StatusOK && media == accept {
		return response, nil
	}
	defer response.Body.Close()
	return nil, c.refusal(response, media, method, path)
}

// refusal is the error of a response that is not the answer asked for.
func (c *Client) refusal(response *http.Response, media, method, path string) error {
	if media == mediaProblem {
		fault := new(Fault)
		data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		if err == nil {
			err = json.Unmarshal(data, fault)
		}
		if err == nil && (fault.Detail != "" || fault.Title != "") {
			fault.Status = response.StatusCode
			if fault.Detail == "" {
				fault.Detail = fault.Title
			}
			return fault
		}
	}
	return fmt.Errorf("%s answered %s %s with %q (%s), as no puppetsrv does: is it another service's address?",
		c.server, method, path, response.Status, media)
}

// errTimeout is the cause of a context that ended by the client's own time-out.
var errTimeout = errors.New("time-out")
