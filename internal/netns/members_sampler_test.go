//go:build linux

package netns_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// gap is how many serials a CA leaves out when it opens: the default.
const gap = 1000

// pace is the pause between two questions of a sampler.
const pace = 40 * time.Millisecond

// client is somebody on a host who asks a master's puppetserver, with a certificate or
// without.
func (s *memberSite) client(from, to string, certificates ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(s.path("ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		s.t.Fatalf("the CA's certificate: %v", err)
	}
	address := s.hosts[to].Addr.String() + ":8140"
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.hosts[from].Dial(ctx, network, address)
		},
	}}
}

// exchange sends a request to a master's puppetserver.
func exchange(ctx context.Context, c *http.Client, to, method, path string, body []byte) (code int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "https://"+to+".example.net"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	response, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, answer, err
}

// sign has a master's CA sign a new certificate, and returns its serial; an error where it
// does not.
func sign(ctx context.Context, c *http.Client, to, certname string) (int64, error) {
	csr, _, err := stub.NewCSR(certname)
	if err != nil {
		return 0, err
	}
	const ca = "/puppet-ca/v1/"
	code, answer, err := exchange(ctx, c, to, http.MethodPut, ca+"certificate_request/"+certname, csr)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", code, answer)
	}
	if err != nil {
		return 0, err
	}
	if code, answer, err = exchange(ctx, c, to, http.MethodGet, ca+"certificate/"+certname, nil); err != nil {
		return 0, err
	}
	block, _ := pem.Decode(answer)
	if block == nil {
		return 0, fmt.Errorf("HTTP %d: %s", code, answer)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return 0, err
	}
	return cert.SerialNumber.Int64(), nil
}

// signs has a master's CA sign a certificate, and returns its serial.
func (s *memberSite) signs(name, certname string) int64 {
	s.t.Helper()
	c := s.client(name, name)
	defer c.CloseIdleConnections()
	serial, err := sign(s.t.Context(), c, name, certname)
	if err != nil {
		s.t.Fatalf("%s does not sign: %v", name, err)
	}
	return serial
}

// signing is a certificate that a CA has signed.
type signing struct {
	serial       int64
	began, ended time.Time
}

// glimpse is what a member said of its role.
type glimpse struct {
	began, ended time.Time
	boot         uint64 // of the member; 0: none answered
	state        string
	version      string
	opened       string
	dark         bool // its host was without power then
}

// open reports whether it may sign.
func (g *glimpse) open() bool {
	return g.state == evidence.Open || g.state == evidence.Opening || g.state == evidence.Closing
}

// sampler asks the CAs of hosts all the time for certificates, each on its own host, and
// their members for their roles.
type sampler struct {
	s     *memberSite
	stop  func()
	hosts []string

	mu       sync.Mutex
	signed   map[string][]signing
	refused  map[string][]signing // with serial 0
	glimpses map[string][]glimpse
}

// sample begins to ask the CAs that may be camaster's. It ends with the test, if not
// before.
func (s *memberSite) sample() *sampler {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &sampler{s: s, hosts: s.capable, signed: make(map[string][]signing), refused: make(map[string][]signing), glimpses: make(map[string][]glimpse)}
	s.samplers++
	var all sync.WaitGroup
	for _, name := range p.hosts {
		client, prefix := s.client(name, name), fmt.Sprintf("s%d-%s-", s.samplers, name)
		all.Go(func() { p.ask(ctx, name, prefix, client) })
		all.Go(func() { p.look(ctx, name) })
	}
	p.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	s.t.Cleanup(p.stop)
	return p
}

func (p *sampler) ask(ctx context.Context, name, prefix string, client *http.Client) {
	defer client.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		one := signing{began: time.Now()}
		var err error
		one.serial, err = sign(ctx, client, name, prefix+strconv.Itoa(n)+".example.net")
		one.ended = time.Now()
		p.mu.Lock()
		if err == nil {
			p.signed[name] = append(p.signed[name], one)
		} else if ctx.Err() == nil {
			p.refused[name] = append(p.refused[name], one)
		}
		p.mu.Unlock()
		pause(ctx, pace)
	}
}

func (p *sampler) look(ctx context.Context, name string) {
	for ctx.Err() == nil {
		g := glimpse{began: time.Now()}
		if st, err := p.s.local(ctx, name); err == nil && st.Evidence.Role != nil {
			r := st.Evidence.Role
			g.boot, g.state, g.version, g.opened = r.Boot, r.State, r.Version, r.Opened
		}
		g.ended = time.Now()
		p.mu.Lock()
		p.glimpses[name] = append(p.glimpses[name], g)
		p.mu.Unlock()
		pause(ctx, pace)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// lost notes that hosts are without power.
func (p *sampler) lost(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, name := range names {
		p.glimpses[name] = append(p.glimpses[name], glimpse{began: now, ended: now, dark: true})
	}
}

// since counts what a CA was asked for from a time on, and what of it was signed.
func (p *sampler) since(name string, from time.Time) (signed, refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := func(all []signing) (n int) {
		for _, one := range slices.Backward(all) {
			if one.began.Before(from) {
				break
			}
			n++
		}
		return n
	}
	return count(p.signed[name]), count(p.refused[name])
}

// last is the newest that a CA has signed.
func (p *sampler) last(name string) signing {
	p.mu.Lock()
	defer p.mu.Unlock()
	if all := p.signed[name]; len(all) > 0 {
		return all[len(all)-1]
	}
	return signing{}
}

// only is that of all CAs one signs, as its newest answers have it.
func (p *sampler) only(camaster string) condition {
	began := time.Now()
	return condition{"signing", func() bool {
		for _, name := range p.hosts {
			signed, refused := p.since(name, began)
			if name == camaster && signed == 0 || name != camaster && (signed > 0 || refused == 0) {
				if signed+refused > 0 {
					began = time.Now()
				}
				return false
			}
		}
		return true
	}}
}

// verify wants what holds at any time, whatever happens: no host opens under another
// one's version, none signs while its member has its role closed, and no serial is of two
// certificates.
func (p *sampler) verify() {
	t := p.s.t
	t.Helper()
	p.stop()
	of := make(map[string]string) // whose a version is
	for _, name := range p.hosts {
		total := 0
		for _, g := range p.glimpses[name] {
			if g.opened == "" || g.opened == "0" {
				continue
			}
			total++
			if other, ok := of[g.opened]; ok && other != name {
				t.Errorf("%s and %s have both opened under %s", other, name, g.opened)
			}
			of[g.opened] = name
		}
		strays := 0
		for _, one := range p.signed[name] {
			if !p.allowed(name, one) {
				if strays++; strays <= 3 {
					t.Errorf("%s has signed %#x at %s while its role was not open: %s", name, one.serial, one.ended.Format("05.000"), p.around(name, one))
				}
			}
		}
		t.Logf("%s: %d signed, %d refused, %d looks, %d of them after it had opened", name, len(p.signed[name]), len(p.refused[name]), len(p.glimpses[name]), total)
		if len(p.signed[name]) == 0 && len(p.refused[name]) == 0 {
			t.Errorf("%s was never asked", name)
		}
	}
	p.s.unique()
}

// allowed reports whether the member was seen with its role open next to a signing: from
// the last look before it to the first one after it.
func (p *sampler) allowed(name string, one signing) bool {
	for _, g := range p.near(name, one) {
		if g.open() {
			return true
		}
	}
	return false
}

func (p *sampler) near(name string, one signing) []glimpse {
	all := p.glimpses[name]
	first, last := 0, len(all)
	for i, g := range all {
		if (g.boot != 0 || g.dark) && g.ended.Before(one.began) {
			first = i
		}
		if (g.boot != 0 || g.dark) && g.began.After(one.ended) {
			last = i + 1
			break
		}
	}
	return all[first:last]
}

func (p *sampler) around(name string, one signing) string {
	var all []string
	for _, g := range p.near(name, one) {
		all = append(all, fmt.Sprintf("%s boot %d %s under %s, opened %s", g.began.Format("05.000"), g.boot, g.state, g.version, g.opened))
	}
	return strings.Join(all, "; ")
}

// unique wants each serial to be of one certificate, in all that any host has or has kept
// aside: it has those too whose signing nobody lived to see.
func (s *memberSite) unique() {
	s.t.Helper()
	found, err := filepath.Glob(s.path("m*", "ca*", "inventory.txt"))
	if err != nil || len(found) < 2 {
		s.t.Fatalf("inventories: %q, %v", found, err)
	}
	of := make(map[string]string)
	for _, path := range found {
		for line := range strings.Lines(readFile(s.t, path)) {
			serial, rest, _ := strings.Cut(line, " ")
			if other, ok := of[serial]; ok && other != rest {
				s.t.Errorf("serial %s is of two certificates:\n%s%s in %s", serial, other, rest, path)
			}
			of[serial] = rest
		}
	}
	s.t.Logf("%d serials in %d inventories, none twice", len(of), len(found))
}

// greatest is the greatest serial in the inventories of a host's CA, and what it kept
// aside.
func (s *memberSite) greatest(name string) (most int64) {
	s.t.Helper()
	found, err := filepath.Glob(s.path(name, "ca*", "inventory.txt"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range found {
		for line := range strings.Lines(readFile(s.t, path)) {
			number, _, _ := strings.Cut(line, " ")
			n, err := strconv.ParseInt(number, 0, 64)
			if err != nil {
				s.t.Fatalf("%s: %v", path, err)
			}
			most = max(most, n)
		}
	}
	return most
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
