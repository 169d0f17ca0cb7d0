package role

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// shut closes what is open, and then makes a standby of the host if it is to be one.
//
// The first step of a service's plan to be closed is what ends its writing. Those are
// run for all services with data before anything else, so that none waits for another
// one's daemon to stop.
func (c *Controller) shut(ctx context.Context, d Decision) time.Duration {
	order := slices.Clone(c.services)
	slices.Reverse(order)
	for _, fence := range []bool{true, false} {
		for _, s := range order {
			if ctx.Err() != nil {
				return 0
			}
			if fence == s.stateless {
				continue
			}
			c.observe(ctx, s, d.To)
			if fence {
				c.shutOne(ctx, s, d, 1)
			}
		}
	}
	c.looked = true
	for _, s := range order {
		if ctx.Err() != nil {
			return 0
		}
		c.shutOne(ctx, s, d, maxSteps)
	}
	if c.stale(d) {
		return 0
	}
	if !slices.ContainsFunc(c.services, func(s *service) bool { return s.open() }) {
		c.change.reached = true
		c.settle(d)
	}
	if d.To == Standby {
		c.stand(ctx, d)
	}
	if c.stale(d) { // also by what was settled
		return 0
	}
	return c.due(c.cfg.Interval)
}

// open reports whether a service is open, or may be.
func (s *service) open() bool { return s.seen.State != Closed && s.seen.State != Standby }

// shutOne runs the first most steps by which a service closes, if there are any and it
// is time to. With most of 1 it leaves alone what is closed.
func (c *Controller) shutOne(ctx context.Context, s *service, d Decision, most int) {
	fence := most == 1
	switch {
	case s.seen.State == Standby, s.seen.State == Closed && d.To == Standby:
		if d.To == Closed {
			s.well()
		}
		return
	case s.seen.State == Closed && fence:
		return
	case s.seen.State == Open:
		c.found(s, d)
	}
	if s.later() {
		return
	}
	steps, err := c.plan(s, s.seen, Closed)
	if err == nil && len(steps) == 0 && s.open() {
		err = fmt.Errorf("it is %s, and does not know how to close%s", s.seen.State, detail(s.seen.Detail))
	}
	if err == nil && len(steps) > 0 {
		err = c.apply(ctx, s, d, Closed, steps, most)
		c.observe(ctx, s, d.To)
		if err == nil && !fence && s.open() {
			err = fmt.Errorf("it is %s after all steps%s", s.seen.State, detail(s.seen.Detail))
		}
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.fail(s, fmt.Errorf("closing: %w", err))
	case !fence:
		s.well()
	}
}

// found notes that a service is open that must not be.
func (c *Controller) found(s *service, d Decision) {
	c.mu.Lock()
	own, opened := c.record.Data == Own, c.record.Opened
	c.mu.Unlock()
	if !own && !s.stateless {
		// It may have been written to, so what it holds is no mere copy any more.
		// The disk is told while it is still open: once it is closed, nobody can see that.
		c.note(func(r *Record) { r.Data = Own })
		_ = c.save() // closing does not depend on it
	}
	if s.problem == "" && (c.change.reached || !own) {
		c.cfg.Log.Errorf("camaster %s: %s is open, and must not be: it is closed now (last opened here under %s)", d.Version, s.Name(), opened)
	}
}

// settle draws conclusions from everything being closed.
func (c *Controller) settle(d Decision) {
	c.mu.Lock()
	r := c.record.clone()
	c.mu.Unlock()
	switch {
	case r.damaged != nil:
	case r.Data == Unsure:
		data := c.holds()
		if c.commit(func(r *Record) { r.Data = data }) == nil {
			c.cfg.Log.Infof("there was no record of the role of this host: what its services hold counts as %s", map[Data]string{Copy: "a copy", Own: "their own"}[data])
		}
	case r.Data == Own && c.handing(d) && !slices.ContainsFunc(c.services, func(s *service) bool { return s.moving || s.problem != "" }):
		why := r.unclean(c.cfg.BootID)
		for _, s := range c.services {
			if cleaner, ok := s.Service.(Cleaner); ok && why == "" {
				if err := c.clean(s, cleaner); err != nil {
					why = fmt.Sprintf("%s: %v", s.Name(), err)
				}
			}
		}
		if why != "" {
			c.waits, c.unclean = "it is closed, but has to `rejoin` afterwards: "+why, why
			return
		}
		c.waits, c.unclean = "", ""
		if c.commit(func(r *Record) { r.Data = Copy }) == nil {
			c.cfg.Log.Infof("camaster %s: everything is closed, cleanly, for the handover to %s", d.Version, name(d.Value.Handover))
		}
	}
}

// handing reports whether the host hands the role over under d.
func (c *Controller) handing(d Decision) bool {
	return d.Value.Host == c.cfg.Host && d.Value.Handover != ""
}

func (c *Controller) clean(s *service, cleaner Cleaner) error {
	c.using <- struct{}{}
	defer func() { <-c.using }()
	if err := s.stuck(); err != nil {
		return err
	}
	return cleaner.Clean(s.seen)
}

// holds is what services hold that are closed and of which there is no record.
func (c *Controller) holds() Data {
	for _, s := range c.services {
		if s.stateless || s.seen.State == Standby {
			continue
		}
		if steps, err := c.plan(s, s.seen, Standby); err != nil || len(steps) > 0 {
			return Own
		}
	}
	return Copy
}
