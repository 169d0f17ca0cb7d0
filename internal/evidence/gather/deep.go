package gather

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// deepCheck has puppetserver do what only a JRuby can: GET /puppet/v3/node/CERTNAME, which
// its auth.conf allows the owner of the certificate. It costs a JRuby some 100 ms, so
// it is made now and then, and after whatever may have changed its outcome.
type deepCheck struct {
	g    *Gatherer
	part *part[deepAnswer]

	mu     sync.Mutex
	reason string // what the last check was for; see due
}

// deepAnswer is what came of it.
type deepAnswer struct {
	made     bool
	at       time.Time
	compiles *bool
	detail   string
}

// again is when a failed check is made again at the latest.
const again = 5 * time.Second

func newDeepCheck(g *Gatherer) *deepCheck {
	d := &deepCheck{g: g}
	d.part = newPart(g, "deep check", deepTimeout, d.look)
	return d
}

// add puts the newest outcome into e, after a check if one is due. It waits for that
// until ctx ends; a slower one shows in a later look.
func (d *deepCheck) add(ctx context.Context, e *evidence.Evidence) {
	running := e.Puppetserver.State == "running"
	due := d.due(running, situation(e))
	if due {
		d.part.start()
	}
	if !running {
		return
	}
	answer, _ := d.part.peek()
	if due {
		answer, _ = d.part.wait(ctx)
	}
	if answer.made {
		e.Puppetserver.Compiles, e.Puppetserver.CompileDetail = answer.compiles, answer.detail
	}
}

// situation is what a check's outcome may depend on.
func situation(e *evidence.Evidence) string {
	s := ""
	for _, env := range e.Code {
		s += env.Name + "=" + env.Revision + " "
	}
	if e.Certificate != nil {
		s += e.Certificate.NotAfter.String()
	}
	return s
}

// due says whether to check now. What was known of a puppetserver that is not running
// any more is forgotten: the next one is another.
func (d *deepCheck) due(running bool, situation string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !running {
		d.reason = ""
		d.part.forget()
		return false
	}
	situation = "running " + situation
	last, done := d.part.peek()
	if !done {
		return false
	}
	every := d.g.c.DeepEvery
	if last.compiles == nil || !*last.compiles {
		every = min(every, again)
	}
	if last.made && situation == d.reason && time.Since(last.at) < every {
		return false
	}
	d.reason = situation
	return true
}

func (d *deepCheck) look(ctx context.Context) deepAnswer {
	a := deepAnswer{made: true}
	if err := d.g.client.identity(); err != nil {
		a.detail = fmt.Sprintf("not tried: the host's certificate: %s", err)
	} else {
		status, body, err := d.g.client.get(ctx, d.g.c.Puppetserver, "/puppet/v3/node/"+url.PathEscape(d.g.c.Certname)+"?environment=production")
		switch ok := err == nil && status == http.StatusOK; {
		case d.g.ctx.Err() != nil:
			a.made = false
		case errors.Is(err, errLate):
			a.detail = fmt.Sprintf("a node request is not answered in %s: its JRubies are busy, or wait for PuppetDB", deepTimeout)
		case err != nil:
			a.compiles, a.detail = &ok, err.Error()
		case !ok && waitsForPuppetDB(body):
			a.detail = fmt.Sprintf("a node request fails for want of PuppetDB: HTTP %d %s", status, short(body))
		case !ok:
			a.compiles, a.detail = &ok, fmt.Sprintf("HTTP %d %s", status, short(body))
		default:
			a.compiles = &ok
		}
	}
	a.at = time.Now()
	return a
}

// waitsForPuppetDB reports whether a node request failed because no PuppetDB answered, from
// which puppetserver takes the host's facts (routes.yaml). That is no fault of this
// host's: when the camaster's PuppetDB is lost all masters say so at once, and the one that
// is to be made camaster must not be refused for what it is to mend. Seen of
// puppetserver 7.9.5: "Failed to find facts from PuppetDB at  Failed to execute
// '/pdb/query/v4/nodes/NAME/facts' on at least 1 of the following 'server_urls'".
func waitsForPuppetDB(body []byte) bool {
	return bytes.Contains(body, []byte("PuppetDB")) || bytes.Contains(body, []byte("/pdb/"))
}

// peek returns what was seen last, and whether nothing is under way.
func (p *part[T]) peek() (v T, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.running == nil
}

// forget drops what was seen last. A look under way still counts.
func (p *part[T]) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var none T
	p.last = none
}
