package role

import (
	"errors"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// States of an evidence.Rejoin.
const (
	rejoinRunning = "running"
	rejoinDone    = "done"
	rejoinFailed  = "failed"
	rejoinManual  = "manual"
)

// rejoinTries is how often in a row a step may fail before a rejoin has.
const rejoinTries = 3

// maxManual is how much of the commands to be run by hand is kept, in bytes.
const maxManual = 4096

// answer begins a rejoin that was asked for, or says why not, and returns the decision
// that follows from it.
func (c *Controller) answer(id string, d Decision) Decision {
	c.mu.Lock()
	last := c.record.Rejoin
	c.mu.Unlock()
	if last != nil && last.ID == id {
		return d
	}
	r := &evidence.Rejoin{ID: id, State: rejoinRunning, Began: time.Now()}
	if !d.Former && d.State != evidence.Standby {
		r.State, r.Detail = rejoinFailed, "it is no former camaster: "+d.Reason
		if d.State == evidence.Open {
			r.Detail = "it is the camaster, under " + d.Version.String()
		}
	}
	c.retry()
	if err := c.commit(func(rec *Record) { rec.Rejoin = r }); err != nil {
		c.note(func(rec *Record) {
			rec.Rejoin = &evidence.Rejoin{ID: id, State: rejoinFailed, Began: r.Began, Detail: err.Error()}
		})
	}
	if r.State == rejoinRunning {
		c.cfg.Log.Infof("camaster %s: rejoining as a standby of %s, request %s", d.Version, name(d.Value.Host), id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decide()
}

// rejoined ends a rejoin when there is an end to it.
func (c *Controller) rejoined(follows bool, manual error) {
	c.mu.Lock()
	r := c.record.clone()
	c.mu.Unlock()
	if r.Rejoin == nil || r.Rejoin.State != rejoinRunning {
		return
	}
	end := *r.Rejoin
	switch {
	case follows:
		end.State, end.Detail = rejoinDone, ""
	case manual != nil:
		end.State, end.Detail = rejoinManual, bound(manual.Error(), maxManual)
	default:
		var errs []error
		for _, s := range c.services {
			if s.failures >= rejoinTries {
				errs = append(errs, errors.New(s.Name()+": "+s.problem))
			}
		}
		if errs == nil {
			return
		}
		end.State, end.Detail = rejoinFailed, bound(errors.Join(errs...).Error(), maxManual)
	}
	err := c.commit(func(r *Record) {
		r.Rejoin = &end
		if follows {
			r.Data = Copy
		}
	})
	switch {
	case err != nil: // it is tried again
	case follows:
		c.cfg.Log.Infof("rejoined as a standby, request %s", end.ID)
	default:
		c.cfg.Log.Errorf("rejoining, request %s: %s: %s", end.ID, end.State, end.Detail)
	}
}

// abandon ends a rejoin that the host is no longer there for.
func (c *Controller) abandon(d Decision) {
	c.mu.Lock()
	r := c.record.Rejoin
	c.mu.Unlock()
	if r == nil || r.State != rejoinRunning || d.Former || d.State == evidence.Standby {
		return
	}
	c.note(func(rec *Record) {
		rec.Rejoin = &evidence.Rejoin{ID: r.ID, Began: r.Began, State: rejoinFailed, Detail: "it is no former camaster any more, under " + d.Version.String()}
	})
}

// bound cuts a text of several lines.
func bound(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}
