package role

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/register"
)

const (
	clearTime  = 3 * time.Second        // for one answer
	clearAgain = 100 * time.Millisecond // between two
	openAgain  = 250 * time.Millisecond // looks at a service that opens by itself
)

// open opens what is not open, in order. A service that cannot be opened does not keep
// those after it closed.
func (c *Controller) open(ctx context.Context, d Decision) time.Duration {
	all := true
	for _, s := range c.services {
		all = c.observe(ctx, s, Open).State == Open && all
	}
	c.looked = c.looked || ctx.Err() == nil
	if !all && d.Hold {
		return c.cfg.Interval
	}
	if !all {
		if wait, ok := c.cleared(ctx, d); !ok {
			return wait
		}
		c.foresee(d)
	}
	again, acted := c.cfg.Interval, false
	for _, s := range c.services {
		if ctx.Err() != nil || c.stale(d) {
			return 0
		}
		if acted { // it may have opened with those before it
			c.observe(ctx, s, Open)
		}
		ran, err := c.openOne(ctx, s, d)
		acted = acted || ran
		switch {
		case errors.Is(err, errMoved):
			return 0
		case err != nil:
			c.fail(s, err)
		}
		if s.seen.State != Open {
			again = openAgain
		}
	}
	all = !slices.ContainsFunc(c.services, func(s *service) bool { return s.seen.State != Open })
	if all {
		if c.opened(d) != nil {
			return diskAgain
		}
		c.change.reached = true
	}
	return c.due(again)
}

// openOne opens a service, if it is time to, and reports whether it ran a step.
func (c *Controller) openOne(ctx context.Context, s *service, d Decision) (ran bool, err error) {
	o := s.seen
	if o.State == Open {
		s.well()
		return false, nil
	}
	if s.later() {
		return false, nil
	}
	if c.change.reached && s.problem == "" {
		c.cfg.Log.Errorf("camaster %s: %s is %s, and should be open: %s", d.Version, s.Name(), o.State, o.Detail)
	}
	steps, err := c.plan(s, o, Open)
	if err != nil {
		return false, err
	}
	if len(steps) == 0 {
		s.well() // it opens by itself
		return false, nil
	}
	if err := c.opened(d); err != nil {
		return false, err
	}
	if err := c.apply(ctx, s, d, Open, steps, len(steps)); err != nil {
		return true, err
	}
	if o := c.observe(ctx, s, Open); o.State != Open {
		return true, fmt.Errorf("it is %s after all steps%s", o.State, detail(o.Detail))
	}
	s.well()
	return true, nil
}

// opened makes the record say that the host has opened under d, before it does.
func (c *Controller) opened(d Decision) error {
	c.mu.Lock()
	r := &c.record
	done := r.Opened == d.Version && r.OpenedBoot == c.cfg.BootID && r.Data == Own
	moved := r.Newest.Version != d.Version
	c.mu.Unlock()
	switch {
	case moved:
		return errMoved
	case done:
		return nil
	}
	if err := c.commit(func(r *Record) { r.open(c.cfg.BootID) }); err != nil {
		return err
	}
	c.publish()
	return nil
}

// foresee lists the steps of all services before the first is run.
func (c *Controller) foresee(d Decision) {
	if c.change.listed {
		return
	}
	for _, s := range c.services {
		if s.seen.State == Open {
			continue
		}
		if steps, err := c.plan(s, s.seen, Open); err == nil && len(steps) > 0 {
			c.list(s, d, steps)
		}
	}
	c.publish()
}

// clearance is what is known of the former camaster.
type clearance struct {
	version register.Version
	began   time.Time
	done    bool
}

// cleared reports whether the former camaster has closed and left everything here, or
// cannot be waited for any longer; else when to ask again.
func (c *Controller) cleared(ctx context.Context, d Decision) (time.Duration, bool) {
	c.mu.Lock()
	opened := c.record.Opened == d.Version
	c.mu.Unlock()
	old := d.Value.From
	if c.cfg.Clear == nil || opened || old == "" || old == c.cfg.Host {
		return 0, true
	}
	if c.clear.version != d.Version {
		c.clear = clearance{version: d.Version, began: time.Now()}
	}
	if c.clear.done {
		return 0, true
	}
	askCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !c.start(Open, d, cancel) {
		return 0, false
	}
	askCtx, stop := context.WithTimeoutCause(askCtx, clearTime, fmt.Errorf("no answer within %v", clearTime))
	defer stop()
	wait, err := c.cfg.Clear(askCtx, old)
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	if ctx.Err() != nil || c.stale(d) {
		return 0, false
	}
	c.waits = ""
	took := time.Since(c.clear.began)
	switch {
	case err != nil:
		c.cfg.Log.Warningf("camaster %s: %s cannot be asked whether it has closed, and is not waited for: %v", d.Version, name(old), err)
	case wait == "":
		c.cfg.Log.Infof("camaster %s: %s has closed, and left everything here; waited for it for %v", d.Version, name(old), took.Round(time.Millisecond))
	case took >= c.cfg.ClearWithin:
		c.cfg.Log.Errorf("camaster %s: waited for %s for %v, and no longer: %s", d.Version, name(old), c.cfg.ClearWithin, wait)
	default:
		c.waits = fmt.Sprintf("it waits for %s: %s", name(old), cut(wait))
		return clearAgain, false
	}
	c.clear.done = true
	return 0, true
}
