package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a disk in memory that can fail.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte
	fail  error // of every write
}

func newDisk() *disk { return &disk{files: make(map[string][]byte)} }

func (d *disk) Read(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, ok := d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

func (d *disk) Write(name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.files[name] = slices.Clone(data)
	return nil
}

func (d *disk) setFail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// pki is a Puppet CA with its files.
type pki struct {
	t         testing.TB
	ca        *stub.CA
	authority *trust.Authority
	crl       string // path
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	ca, err := stub.NewCA("Puppet CA: m1.example.net")
	if err != nil {
		t.Fatal(err)
	}
	p := &pki{t: t, ca: ca, crl: filepath.Join(t.TempDir(), "crl.pem")}
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.writeCRL()
	if p.authority, err = trust.Open(caFile, p.crl); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pki) writeCRL() {
	p.t.Helper()
	list, err := p.ca.CRL()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(p.crl+".new", list, 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(p.crl+".new", p.crl); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pki) identity(name string) *trust.Identity {
	p.t.Helper()
	id, err := p.ca.Issue(stub.IssueOptions{CommonName: name})
	if err != nil {
		p.t.Fatal(err)
	}
	identity, err := trust.NewIdentity(id.Certificate)
	if err != nil {
		p.t.Fatal(err)
	}
	return identity
}

// site is a cluster inside one test.
type site struct {
	t       testing.TB
	pki     *pki
	network *gossiptest.Network
	ids     map[string]*trust.Identity
	disks   map[string]*disk
	nodes   map[string]*cluster.Cluster
	seeds   []string
	addrs   map[string]netip.AddrPort
	log     gossip.Logger

	mu        sync.Mutex
	conflicts map[string][]string // "winner over loser", as each node was told
}

func newSite(t testing.TB, p *pki, seed uint64) *site {
	return &site{
		t: t, pki: p, network: gossiptest.NewNetwork(seed), log: testLog{t},
		ids: make(map[string]*trust.Identity), disks: make(map[string]*disk), nodes: make(map[string]*cluster.Cluster),
		addrs: make(map[string]netip.AddrPort), conflicts: make(map[string][]string),
	}
}

func nodeName(i int) string { return fmt.Sprintf("ns%d.example.net", i) }

func isNode(name string) bool {
	return strings.HasPrefix(name, "ns") && strings.HasSuffix(name, ".example.net")
}

func (s *site) config(name string) cluster.Config {
	s.t.Helper()
	if s.ids[name] == nil {
		s.ids[name] = s.pki.identity(name)
	}
	if s.disks[name] == nil {
		s.disks[name] = newDisk()
	}
	if !s.addrs[name].IsValid() {
		n := len(s.addrs) + 1
		s.addrs[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 7946)
		if n <= 2 {
			s.seeds = append(s.seeds, s.addrs[name].String())
		}
	}
	role := cluster.RoleNode
	if !isNode(name) {
		role = cluster.RoleMaster
	}
	key, err := gossip.NewKeyRing([]byte("0123456789abcdef"))
	if err != nil {
		s.t.Fatal(err)
	}
	return cluster.Config{
		Name: name, Role: role, Identity: s.ids[name], Authority: s.pki.authority, Disk: s.disks[name], Log: s.log,
		Policy: cluster.Policy{Admit: func(string) bool { return true }, Signers: isNode, Join: s.seeds},
		Gossip: &gossip.Config{Bind: s.addrs[name], Profile: gossip.LAN, KeyRing: key, Transport: s.network.Transport(s.addrs[name])},
		Conflict: func(w register.Entry, unknown []register.Entry) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, u := range unknown {
				s.conflicts[name] = append(s.conflicts[name], w.Version.String()+" over "+u.Version.String())
			}
		},
	}
}

func (s *site) start(name string) *cluster.Cluster {
	s.t.Helper()
	c, err := cluster.Start(s.config(name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes[name] = c
	return c
}

func (s *site) crash(name string) {
	s.nodes[name].Close()
	delete(s.nodes, name)
}

// end closes everything, as a test in a bubble must.
func (s *site) end() {
	for _, c := range s.nodes {
		c.Close()
	}
	time.Sleep(gossiptest.Linger)
	synctest.Wait()
}

// until waits in simulated time.
func (s *site) until(what string, most time.Duration, ok func() bool) {
	s.t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > most {
			s.t.Fatalf("not within %v: %s", most, what)
		}
	}
}

// met waits until all nodes see each other and have each other's reports.
func (s *site) met() {
	s.t.Helper()
	s.until("all meet", 30*time.Second, func() bool {
		for _, c := range s.nodes {
			fresh := 0
			for _, p := range c.Peers() {
				if p.Fresh {
					fresh++
				}
			}
			if fresh != len(s.nodes) {
				return false
			}
		}
		return true
	})
}

// publish gives every node something to report.
func (s *site) publish() {
	for _, c := range s.nodes {
		c.Publish(cluster.Report{Release: "test", Datacenter: "datacenter1"})
	}
}

func flip(to, reason string) cluster.Change {
	return cluster.Change{Key: "camaster", Value: json.RawMessage(`{"host":"` + to + `"}`), Actor: "ops", Reason: reason}
}

// camaster is what a node holds: the host and the version.
func camaster(c *cluster.Cluster) string {
	e, ok := c.Registers().Get("camaster")
	if !ok {
		return ""
	}
	var v struct{ Host string }
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return err.Error()
	}
	return v.Host + " " + e.Version.String()
}

func (s *site) agree() (string, bool) {
	var all string
	first := true
	for _, c := range s.nodes {
		if got := camaster(c); first {
			all, first = got, false
		} else if got != all {
			return "", false
		}
	}
	return all, true
}

type testLog struct{ t testing.TB }

func (testLog) Debugf(string, ...any)              {}
func (testLog) Infof(string, ...any)               {}
func (l testLog) Warningf(format string, v ...any) { l.t.Logf("WARN "+format, v...) }
func (l testLog) Errorf(format string, v ...any)   { l.t.Logf("ERROR "+format, v...) }

var errDisk = errors.New("no space left on device")
