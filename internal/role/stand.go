package role

import (
	"context"
	"errors"
	"fmt"
)

// stand makes a standby of each service that is closed, as far as it gets.
func (c *Controller) stand(ctx context.Context, d Decision) {
	follows := true
	var manual []error
	for _, s := range c.services {
		if ctx.Err() != nil || c.stale(d) {
			return
		}
		if s.open() || s.presumed && !c.change.follows {
			follows = false
			continue
		}
		by, err := c.standOne(ctx, s, d)
		switch {
		case errors.Is(err, errMoved) || ctx.Err() != nil:
			return
		case by:
			manual = append(manual, fmt.Errorf("%s: %w", s.Name(), err))
		}
		if err != nil {
			c.fail(s, err)
		}
		follows = follows && s.problem == ""
	}
	c.change.follows = follows
	c.rejoined(follows && c.confirmed(), errors.Join(manual...))
}

// confirmed reports whether every service that can tell does follow the camaster.
func (c *Controller) confirmed() bool {
	for _, s := range c.services {
		f, ok := s.Service.(Follower)
		if !ok || s.seen.State != Standby {
			continue
		}
		if err := f.Follows(s.seen); err != nil {
			c.waits = fmt.Sprintf("%s: %v", s.Name(), err)
			return false
		}
	}
	return true
}

// standOne makes a standby of a service, if it is time to. byHand is that a person has
// to do what the error says.
func (c *Controller) standOne(ctx context.Context, s *service, d Decision) (byHand bool, err error) {
	if s.later() {
		return false, nil
	}
	steps, err := c.plan(s, s.seen, Standby)
	if err != nil {
		return true, err
	}
	if len(steps) > 0 {
		if err := c.apply(ctx, s, d, Standby, steps, len(steps)); err != nil {
			return false, err
		}
		c.observe(ctx, s, d.To)
		if steps, err := c.plan(s, s.seen, Standby); err != nil || len(steps) > 0 || s.open() {
			return false, fmt.Errorf("it is %s after all steps, and no standby%s", s.seen.State, detail(s.seen.Detail))
		}
	}
	s.well()
	return false, nil
}
