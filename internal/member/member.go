// Package member is the daemon on a Puppet master: it joins the cluster, says what only
// the host can know, and has the host become, be, or stop being the camaster, as the
// register says. It joins internal/cluster, internal/role and the services of the role;
// it never decides who is camaster, and writes no register.
package member

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/casync"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/evidence/gather"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/settings"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Config is what a member is started with.
type Config struct {
	Settings *settings.Settings
	Release  string
	Log      *slog.Logger
}

// Member is one running member. Its methods are safe for concurrent use.
type Member struct {
	log      Logger
	slog     *slog.Logger // the same
	release  string
	started  time.Time
	current  atomic.Pointer[settings.Settings]
	trust    identity
	lock     *store.Lock // of the state directory
	cluster  *cluster.Cluster
	roll     *roll
	role     *role.Controller // nil on a host that cannot be camaster
	reload   *role.Reload     // nil without commands
	postgres *postgres.Service
	ca       *authority // nil without a CA
	crl      *casync.CRLFollower
	gatherer *gather.Gatherer
	metrics  *prometheus.Registry

	server, local, exporter *http.Server
	asking                  asking

	ctx      context.Context
	cancel   context.CancelFunc
	done     sync.WaitGroup
	kicked   chan struct{} // registers or members have changed
	due      chan struct{} // something is to be published
	stirred  chan struct{} // the host is to be looked at again
	awaited  chan struct{} // the database and the CA are to be looked at
	decided  chan struct{} // closed once what must not be open is not
	left     chan struct{} // closed when the host is to leave for good
	leaving  sync.Once
	deciding sync.Once
	pulse    atomic.Int64 // when the loop that tells the nodes last went round, Unix nanoseconds

	mu      sync.Mutex
	drained *evidence.Drain
	looked  look      // at everything
	at      time.Time // of looked
	glanced look      // at the database and the CA alone
	roleWas string    // the role's state as it was told last
	roleAt  time.Time // when the role's state last changed
}

// identity is who this member is and whom it believes.
type identity struct {
	identity  atomic.Pointer[trust.Identity]
	authority *trust.Authority
}

// closing is how long requests that are being answered may take to end.
const closing = 500 * time.Millisecond

// goodbye is how long telling the others takes at most.
const goodbye = time.Second

// Start begins everything, or nothing. Before it returns, what is open on this host and
// should not be is being closed.
func Start(cfg Config) (*Member, error) {
	s := cfg.Settings
	m := &Member{
		log: lines{cfg.Log}, slog: cfg.Log, release: cfg.Release, started: time.Now(), roll: newRoll(s.Nodes),
		kicked: make(chan struct{}, 1), due: make(chan struct{}, 1), stirred: make(chan struct{}, 1), awaited: make(chan struct{}, 1), decided: make(chan struct{}), left: make(chan struct{}), metrics: prometheus.NewRegistry(),
	}
	m.current.Store(s)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.start(s); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// start begins one thing after the other, until one fails.
func (m *Member) start(s *settings.Settings) error {
	id, err := trust.LoadIdentity(s.Puppet.Cert, s.Puppet.Key)
	if err != nil {
		return err
	}
	if id.Name != s.Certname {
		return fmt.Errorf("%s is the certificate of %s, and certname is %s: name the host's own", s.Puppet.Cert, id.Name, s.Certname)
	}
	m.trust.identity.Store(id)
	if m.trust.authority, err = trust.Open(s.Puppet.Authority, s.Puppet.CRL); err != nil {
		return err
	}
	if m.lock, err = store.LockDir(s.State); err != nil {
		return err
	}
	disk := store.Dir(s.State)
	if err := m.buildRole(s, disk); err != nil {
		return err
	}
	if err := m.join(s, disk); err != nil {
		return err
	}
	m.gatherer = gather.New(m.gatherConfig(s))
	if err := m.buildFollowers(s); err != nil {
		return err
	}
	if err := m.listenLocal(); err != nil {
		return err
	}
	if err := m.listen(); err != nil {
		return err
	}
	if err := m.export(s); err != nil {
		return err
	}
	m.changed()
	m.done.Go(m.runKnowledge)
	m.done.Go(m.runPublish)
	m.done.Go(func() { m.hear(m.ctx) })
	m.done.Go(func() { m.crl.Run(m.ctx) })
	if m.role != nil {
		m.done.Go(func() { m.role.Run(m.ctx) })
	}
	if m.ca != nil {
		m.done.Go(func() { m.ca.puller.Run(m.ctx) })
	}
	if m.postgres != nil {
		m.done.Go(m.runHeard)
	}
	if m.reload != nil {
		m.done.Go(func() { m.reload.Run(m.ctx) })
	}
	return nil
}

// join begins to take part in the cluster.
func (m *Member) join(s *settings.Settings, disk cluster.Disk) error {
	g := gossip.Config{Bind: s.Gossip.Bind, Advertise: s.Gossip.Advertise, Profile: s.Gossip.Profile}
	if s.Gossip.Key != "" {
		ring, err := gossip.OpenKeyRing(s.Gossip.Key)
		if err != nil {
			return err
		}
		g.KeyRing = ring
	}
	c, err := cluster.Start(cluster.Config{
		Name: s.Certname, Role: cluster.RoleMaster, Policy: m.policy(s), Disk: disk, Gossip: &g, Log: clusterLog{m.log},
		Changed: m.changed, Operate: m.operate,
		Identity: m.trust.identity.Load(), Authority: m.trust.authority,
	})
	m.cluster = c
	return err
}

func (m *Member) policy(s *settings.Settings) cluster.Policy {
	nodes := make(map[string]bool, len(s.Nodes))
	for _, n := range s.Nodes {
		nodes[n] = true
	}
	return cluster.Policy{
		// Who may join is the nodes' decision. A stranger whom they refuse is not listened
		// to by a master either: what counts here is sealed by a node.
		Admit:   func(string) bool { return true },
		Signers: func(certname string) bool { return nodes[certname] },
		Join:    s.Gossip.Join, Identity: m.trust.identity.Load(), Authority: m.trust.authority,
	}
}

// operate does what a node asks for.
func (m *Member) operate(_ context.Context, op string, arg []byte) (any, error) {
	if op != "rejoin" {
		return nil, fmt.Errorf("%.100q is nothing that this release can do", op)
	}
	if m.role == nil {
		return nil, errNoRoles
	}
	return struct{}{}, m.rejoin(arg)
}

// changed says that registers or members are not what they were.
func (m *Member) changed() {
	select {
	case m.kicked <- struct{}{}:
	default:
	}
}

// runKnowledge has the role know what the registers say.
func (m *Member) runKnowledge() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.kicked:
		}
		k := m.knowledge()
		if m.role != nil {
			m.role.Know(k)
		}
		if m.reload != nil {
			m.reload.Know(k)
		}
		if k.Value.Handover == m.settings().Certname+"." {
			m.await()
		}
		m.publish()
	}
}

func (m *Member) knowledge() role.Knowledge {
	// Who was heard first: what they hold is then among what is known.
	missing := m.roll.missing()
	return role.Know(m.cluster.Registers(), missing, m.cluster.Boot())
}

// camaster is who the newest version known here names, without the final dot.
func (m *Member) camaster() string {
	v, _, _ := camaster.Of(m.cluster.Registers())
	return strings.TrimSuffix(v.Host, ".")
}

// reach is where another master's member listens, by its certname.
func (m *Member) reach(certname string) (address string, err error) {
	for _, p := range m.cluster.Peers() {
		if p.Name == certname && p.Address.IsValid() {
			return net.JoinHostPort(p.Address.Addr().String(), fmt.Sprint(m.settings().Listen.Port())), nil
		}
	}
	return "", fmt.Errorf("%s is no member of the cluster, as far as this one knows", certname)
}

// client is for another master's member.
func (m *Member) client(certname string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:       m.trust.authority.ClientTLS(certname, m.trust.identity.Load),
			DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSHandshakeTimeout:   3 * time.Second,
			ResponseHeaderTimeout: time.Minute, // of a long poll
			IdleConnTimeout:       time.Minute,
			TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (m *Member) settings() *settings.Settings { return m.current.Load() }

// Leave says goodbye for good and ends: a master that is known by its member alone is
// taken out of the answers. The role stays as it is.
func (m *Member) Leave() { m.end(goodbye) }

// Decided is closed once nothing is open on this host that must not be.
func (m *Member) Decided() <-chan struct{} { return m.decided }

// Left is closed when somebody wants the host to leave for good: see Leave.
func (m *Member) Left() <-chan struct{} { return m.left }

// alive is how long the member may take to go round once.
const alive = 20 * time.Second

// Alive reports whether the member does its work, for a watchdog.
func (m *Member) Alive() bool { return time.Since(time.Unix(0, m.pulse.Load())) < alive }

// decide looks whether the role has been brought to where it may be at least once.
func (m *Member) decide() {
	r := m.roleStatus()
	if r != nil {
		switch r.State {
		case evidence.Open, evidence.Opening, evidence.Closed, evidence.Standby:
		case evidence.Waiting:
			// Before its first look it waits too.
			if !m.role.Decision().Untouched && slices.ContainsFunc(r.Services, func(s evidence.Service) bool { return s.State == string(role.Open) || s.State == string(role.Unknown) }) {
				return
			}
		default:
			return
		}
	}
	m.deciding.Do(func() { close(m.decided) })
}

// Close ends without a word, as before a restart: no answer changes by that. The role
// stays as it is.
func (m *Member) Close() { m.end(0) }

func (m *Member) end(timeout time.Duration) {
	m.cancel()
	for _, s := range []*http.Server{m.server, m.local, m.exporter} {
		if s != nil {
			ctx, cancel := context.WithTimeout(context.Background(), closing)
			if s.Shutdown(ctx) != nil { // whoever is being answered has had a moment
				s.Close()
			}
			cancel()
		}
	}
	if m.cluster != nil {
		if timeout > 0 {
			m.cluster.Leave(timeout)
		} else {
			m.cluster.Close()
		}
	}
	m.done.Wait()
	if m.gatherer != nil {
		m.gatherer.Close()
	}
	m.closeServices()
	if m.lock != nil {
		m.lock.Unlock()
	}
}

// clusterLog leaves out what memberlist says while nothing is wrong.
type clusterLog struct{ Logger }

func (clusterLog) Debugf(string, ...any) {}
