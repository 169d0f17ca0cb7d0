package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/casync"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/evidence/gather"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/settings"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// authority is the CA on this host.
type authority struct {
	dir     *cadir.Dir
	server  *casync.Server
	puller  *casync.Puller
	service role.Service

	mu   sync.Mutex
	last evidence.CA // the last that was complete
	at   time.Time
}

// transition is for how long a copy may be behind, or in the middle of being replaced,
// before that is a problem: a camaster that signs all the time changes all the time.
const transition = 10 * time.Second

func (a *authority) evidence(ctx context.Context) *evidence.CA {
	e := a.dir.Evidence(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	switch {
	case e.Complete:
		a.last, a.at = e, now
	case a.dir.Following() && e.Sealed && a.last.Sealed && now.Sub(a.at) < transition:
		e = a.last // what it has been replaced in may be newer, never older
	}
	if a.dir.Following() && now.Sub(e.Synced) < transition {
		e.Error = ""
	}
	return &e
}

// buildRole makes the services of the role, in the order in which they are opened: the
// database before what writes to it.
func (m *Member) buildRole(s *settings.Settings, disk store.Dir) error {
	commands := func(all [][]string) (out []role.Command) {
		for _, c := range all {
			out = append(out, c)
		}
		return out
	}
	if len(s.Reload) > 0 {
		m.reload = role.NewReload(commands(s.Reload), 0, disk, m.log)
	}
	if !s.Roles.Any() {
		return nil
	}
	boot, err := role.BootID()
	if err != nil {
		return err
	}
	var services []role.Service
	if s.Roles.PostgreSQL != nil {
		if err := m.buildPostgreSQL(s, disk); err != nil {
			return err
		}
		services = append(services, m.postgres)
	}
	if s.Roles.PuppetDB != nil {
		p, err := m.buildPuppetDB(s)
		if err != nil {
			return err
		}
		services = append(services, p)
	}
	if s.Roles.CA != nil {
		if err := m.buildCA(s); err != nil {
			return err
		}
		services = append(services, m.ca.service)
	}
	for _, h := range s.Roles.Hooks {
		hook, err := role.NewHook(role.Hook{Name: h.Name, Open: h.Open, Close: h.Close, Standby: h.Standby, Check: h.Check, Timeout: h.Timeout}, disk, boot)
		if err != nil {
			return err
		}
		services = append(services, hook)
	}
	m.role, err = role.New(role.Config{
		Host: s.Certname + ".", Services: services, Disk: disk, BootID: boot, Log: m.log,
		Changed: m.stir, Clear: m.clear,
	})
	return err
}

// recoverWithin is how long a cadir that hangs may hold up the start of a member.
const recoverWithin = 10 * time.Second

func (m *Member) buildCA(s *settings.Settings) error {
	c := s.Roles.CA
	hosts := append([]string{s.Certname}, c.Replicas...)
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	dir, err := cadir.Open(s.Puppet.CADir, cadir.Options{
		Mode: string(c.Mode), State: s.State, Log: m.slog,
		Turn: uint64(slices.Index(hosts, s.Certname)), Turns: uint64(len(hosts)),
	})
	if err != nil {
		return err
	}
	// A replacement that a crash has cut off is finished first, whoever is camaster now.
	ctx, cancel := context.WithTimeout(m.ctx, recoverWithin)
	defer cancel()
	if err := dir.Recover(ctx); err != nil {
		m.log.Errorf("The CA's files: %s", err)
	}
	a := &authority{dir: dir}
	a.service, err = cadir.NewService(cadir.ServiceConfig{
		Dir: dir, Gap: uint64(c.Gap),
		Stamp:     func() string { return m.role.Status().Opened }, // said before the first step of opening
		Rejoining: m.rejoining,
		Config:    s.Puppet.CAConfig, Restart: s.Puppetserver.Restart, RestartTimeout: s.Puppetserver.Timeout,
		StatusURL: s.Puppet.URL + "/status/v1/simple/ca", Client: m.ownClient(s), Log: m.slog,
	})
	if err != nil {
		return err
	}
	a.server, err = casync.NewServer(casync.ServerConfig{
		Dir: dir, Source: m.source, Rate: int64(c.Rate), InfraCRL: c.InfraCRL, Log: m.slog, Client: m.trust.authority.Client,
		Replicas: func(certname string) bool {
			c := m.settings().Roles.CA
			return c != nil && slices.Contains(c.Replicas, certname)
		},
	})
	if err != nil {
		return err
	}
	a.puller, err = casync.NewPuller(casync.PullerConfig{Dir: dir, Source: m.upstream, TLS: m.trust.authority.ClientTLS("", m.trust.identity.Load), Log: m.slog})
	m.ca = a
	return err
}

func (m *Member) buildPuppetDB(s *settings.Settings) (role.Service, error) {
	p := s.Roles.PuppetDB
	service := role.PuppetDB{
		Hot: p.Mode == settings.Hot, URL: p.URL, Client: m.ownClient(s), Start: p.Start, Stop: p.Stop, Timeout: p.Timeout,
	}
	if m.postgres != nil {
		service.PostgreSQL = func() role.State { return m.stateOf(m.postgres.Name()) }
	}
	return role.NewPuppetDB(service)
}

// stateOf is how a service of the role was last seen.
func (m *Member) stateOf(service string) role.State {
	if r := m.roleStatus(); r != nil {
		for _, s := range r.Services {
			if s.Name == service {
				return role.State(s.State)
			}
		}
	}
	return role.Unknown
}

// ownClient is for puppetserver and PuppetDB of this host, whose certificate is the
// host's own.
func (m *Member) ownClient(s *settings.Settings) *http.Client {
	c := m.client(s.Certname)
	c.Timeout = 5 * time.Second
	return c
}

// source says why the CA's files are not given away: only a camaster has the newest, and
// the one before it, until the new one has opened.
func (m *Member) source() error {
	k := m.knowledge()
	own := m.settings().Certname + "."
	r := m.roleStatus()
	switch {
	case r == nil || r.State == evidence.Waiting:
		return errors.New("this host does not know yet who is camaster")
	case k.Value.Host == own:
		return nil
	case k.Value.From == own && r.Version == k.Version.String() && m.stateOf(m.ca.service.Name()) == role.Closed:
		return nil // nothing is signed here any more, and the next camaster may lack the last
	}
	return fmt.Errorf("%s is not the camaster, %s is", m.settings().Certname, strings.TrimSuffix(k.Value.Host, "."))
}

// upstream is whom the CA's files and the CRL come from: the camaster, and for the
// camaster itself the one before it, until it is open.
func (m *Member) upstream() (casync.Source, error) {
	v := m.knowledge().Value
	host, own := v.Host, m.settings().Certname+"."
	if host == own && v.From != "" && v.From != own {
		if r := m.roleStatus(); r != nil && r.State == evidence.Opening {
			host = v.From
		}
	}
	switch host {
	case "":
		return casync.Source{}, casync.ErrNobody
	case own:
		return casync.Source{Certname: m.settings().Certname}, nil
	}
	host = strings.TrimSuffix(host, ".")
	address, err := m.reach(host)
	if err != nil {
		return casync.Source{}, fmt.Errorf("%w: %w", casync.ErrNobody, err)
	}
	return casync.Source{URL: "https://" + address, Certname: host}, nil
}

// buildFollowers makes what runs on every master.
func (m *Member) buildFollowers(s *settings.Settings) error {
	c := casync.CRLConfig{
		Path: s.Puppet.CRL, CA: s.Puppet.Authority, Source: m.upstream, Self: s.Certname,
		TLS: m.trust.authority.ClientTLS("", m.trust.identity.Load), Log: m.slog,
	}
	if m.ca != nil {
		c.Local = s.Puppet.CADir + "/ca_crl.pem"
	}
	var err error
	m.crl, err = casync.NewCRLFollower(c)
	return err
}

func (m *Member) gatherConfig(s *settings.Settings) gather.Config {
	c := s.Gather()
	c.Role = m.roleStatus
	if m.ca != nil {
		c.CA = m.ca.evidence
	}
	if m.postgres != nil {
		c.PostgreSQL = m.gatherPostgreSQL
	}
	return c
}

// rejoinRequest is what a node asks for.
type rejoinRequest struct {
	ID string `json:"id"`
}

func (m *Member) rejoin(arg []byte) error {
	var r rejoinRequest
	if err := json.Unmarshal(arg, &r); err != nil || r.ID == "" {
		return fmt.Errorf("a rejoin needs an id: %q", arg)
	}
	return m.role.Rejoin(r.ID)
}

func (m *Member) rejoining() bool {
	r := m.roleStatus()
	return r != nil && r.Rejoin != nil && r.Rejoin.State == "running"
}

// plan is by which steps the role would become open, closed or standby.
func (m *Member) plan(ctx context.Context, to string) ([]evidence.Step, error) {
	if m.role == nil {
		return nil, errNoRoles
	}
	switch role.State(to) {
	case role.Open, role.Closed, role.Standby:
		return m.role.Plan(ctx, role.State(to))
	}
	return nil, fmt.Errorf("to what? %q is not open, closed or standby", to)
}
