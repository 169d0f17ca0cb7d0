// Package gather looks at a host and fills in evidence: puppetserver, PuppetDB, the
// code, the certificate and the CRL. It changes nothing, decides nothing, and whatever
// hangs holds up only itself.
package gather

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Config says where to look. What is empty is not looked at.
type Config struct {
	Certname     string // also the name that the local servers' certificates must have
	Cert, Key    string // files of the host's own certificate; read again when they change
	Authority    string // file of the CA's certificates; read again when it changes
	CRL          string // file of the host's CRL
	Environments string // directory of the code
	Puppetserver string // URL, as https://m1.example.net:8140
	PuppetDB     string // URL; "": there is none here
	PuppetDBMode string // hot, service

	// The rest is the caller's, and nil leaves it out. CA and PostgreSQL are called by
	// one goroutine at a time each; while one hangs it is not called again, and its last
	// evidence stands with an Error. Role must not block.
	CA         func(ctx context.Context) *evidence.CA
	PostgreSQL func(ctx context.Context) *evidence.PostgreSQL
	Role       func() *evidence.Role

	Timeout   time.Duration // of each part of a look; 0: 1 s
	DeepEvery time.Duration // between two deep checks; 0: 30 s
}

const (
	defaultTimeout = time.Second
	defaultDeep    = 30 * time.Second
	// deepTimeout is longer than that of the rest: it may wait for a JRuby.
	deepTimeout = 10 * time.Second
	// farewell is how long Close waits for what heeds no context, such as a file system.
	farewell = time.Second
)

// Gatherer looks. Its methods may be called concurrently.
type Gatherer struct {
	c    Config
	ctx  context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	client       *client
	puppetserver *part[evidence.Puppetserver]
	deep         *deepCheck
	code         *part[[]evidence.Environment]
	certificate  *part[*evidence.Certificate]
	crl          *part[*evidence.CRL]
	puppetdb     *part[*puppetdbAnswer]
	ca           *part[*evidence.CA]
	postgresql   *part[*evidence.PostgreSQL]

	mu   sync.Mutex
	last evidence.Evidence
	at   time.Time
	late map[string]bool // parts that were not done in time, by name
}

// New is ready to look. It opens nothing yet.
func New(c Config) *Gatherer {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.DeepEvery == 0 {
		c.DeepEvery = defaultDeep
	}
	g := &Gatherer{c: c, client: newClient(c)}
	g.ctx, g.end = context.WithCancel(context.Background())
	if c.Puppetserver != "" {
		p := &puppetserver{url: c.Puppetserver, client: g.client}
		g.puppetserver = newPart(g, "puppetserver", c.Timeout, p.look)
		g.deep = newDeepCheck(g)
	}
	if c.Environments != "" {
		r := &code{dir: c.Environments}
		g.code = newPart(g, "code", c.Timeout, r.look)
	}
	if c.Cert != "" {
		f := &certificateFile{path: c.Cert}
		g.certificate = newPart(g, "certificate", c.Timeout, f.look)
	}
	if c.CRL != "" {
		f := &crlFile{path: c.CRL, authority: c.Authority, cert: c.Cert}
		g.crl = newPart(g, "crl", c.Timeout, f.look)
	}
	if c.PuppetDB != "" {
		p := &puppetdb{url: c.PuppetDB, client: g.client}
		g.puppetdb = newPart(g, "puppetdb", c.Timeout, p.look)
	}
	if c.CA != nil {
		g.ca = newPart(g, "ca", c.Timeout, c.CA)
	}
	if c.PostgreSQL != nil {
		g.postgresql = newPart(g, "postgresql", c.Timeout, c.PostgreSQL)
	}
	return g
}

// Look looks at all parts at once, and returns within Timeout and a little, or when ctx
// ends. Of a part that was not done then it has what was seen last. After Close it
// looks at nothing.
func (g *Gatherer) Look(ctx context.Context) evidence.Evidence {
	if g.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, g.c.Timeout)
		defer cancel()
		g.look(ctx)
	}
	e, _ := g.Last()
	return e
}

func (g *Gatherer) look(ctx context.Context) {
	g.puppetserver.start()
	g.code.start()
	g.certificate.start()
	g.crl.start()
	g.puppetdb.start()
	g.ca.start()
	g.postgresql.start()

	late := make(map[string]bool)
	var e evidence.Evidence
	if g.puppetserver != nil {
		e.Puppetserver = got(ctx, g.puppetserver, late)
		if late["puppetserver"] {
			e.Puppetserver.State, e.Puppetserver.Detail = "unreachable", g.puppetserver.overdue()
		}
	}
	e.Code = got(ctx, g.code, late)
	if e.Certificate = clone(got(ctx, g.certificate, late)); late["certificate"] {
		e.Certificate = orNew(e.Certificate)
		e.Certificate.Error = g.certificate.overdue()
	}
	if e.CRL = clone(got(ctx, g.crl, late)); late["crl"] {
		e.CRL = orNew(e.CRL)
		e.CRL.Error = g.crl.overdue()
	}
	if e.CA = clone(got(ctx, g.ca, late)); late["ca"] {
		e.CA = orNew(e.CA)
		e.CA.Error = g.ca.overdue()
	}
	if e.PostgreSQL = clone(got(ctx, g.postgresql, late)); late["postgresql"] {
		e.PostgreSQL = orNew(e.PostgreSQL)
		if e.PostgreSQL.Role == "" {
			e.PostgreSQL.Role = "unknown"
		}
		e.PostgreSQL.Error = g.postgresql.overdue()
	}
	if g.puppetdb != nil {
		answer := got(ctx, g.puppetdb, late)
		if late["puppetdb"] {
			answer = &puppetdbAnswer{state: "unreachable", err: g.puppetdb.overdue()}
		}
		e.PuppetDB = answer.evidence(g.c.PuppetDBMode, e.PostgreSQL)
	}
	if g.c.Role != nil {
		e.Role = g.c.Role()
	}
	if g.deep != nil {
		g.deep.add(ctx, &e)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last, g.at, g.late = e, time.Now(), late
}

// Last returns what Look has seen last, and when; the zero time if it was never called.
func (g *Gatherer) Last() (evidence.Evidence, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, g.at
}

// Close ends what is under way. What does not heed that, such as a file system that
// hangs, is left behind after a second.
func (g *Gatherer) Close() {
	g.end()
	done := make(chan struct{})
	go func() {
		g.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(farewell):
	}
	g.client.close()
}

// Collector exports the newest evidence, whenever it is asked. It looks at nothing.
func (g *Gatherer) Collector() prometheus.Collector { return collector{g.now} }

// now is the newest evidence for the collector.
func (g *Gatherer) now() (e evidence.Evidence, at time.Time, late map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, g.at, g.late
}

// clone keeps a part's memory from being changed by whoever has the evidence.
func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func orNew[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}
