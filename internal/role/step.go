package role

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// States of an evidence.Step.
const (
	stepPlanned = "planned"
	stepRunning = "running"
	stepDone    = "done"
	stepFailed  = "failed"
)

const (
	observeTime = 3 * time.Second
	stepTime    = time.Minute // of a step that does not say
	patience    = 10 * time.Second
	// grace is for how long a call may go on after its context has ended. Then it is
	// given up, so that one service that hangs does not keep the others open.
	grace = 2 * time.Second

	backoffFirst = 250 * time.Millisecond
	backoffLast  = 5 * time.Second // also of opening: somebody waits for it

	maxDetail = 300 // bytes of what came of a step
)

// errMoved is that a step was ended because the services belong elsewhere now.
var errMoved = errors.New("the camaster has moved on")

// call calls a service, for at most limit.
func (c *Controller) call(ctx context.Context, s *service, limit time.Duration, f func(ctx context.Context)) error {
	select {
	case c.using <- struct{}{}:
		defer func() { <-c.using }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.call(ctx, limit, f)
}

// call has the using lock.
func (s *service) call(ctx context.Context, limit time.Duration, f func(ctx context.Context)) error {
	if err := s.stuck(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		s.hung = done
		return fmt.Errorf("it hangs: %w, and it does not stop", context.Cause(ctx))
	}
}

// stuck says that a call which was given up has not returned. The caller has the using
// lock.
func (s *service) stuck() error {
	if s.hung != nil {
		select {
		case <-s.hung:
			s.hung = nil
		default:
			return errors.New("it hangs: an earlier call has not returned")
		}
	}
	return nil
}

// observe looks at a service that belongs in a state. That it cannot be seen for a
// moment is no reason to stop a standby, or to start what runs: for as long as patience
// it is taken for what it was, if that is as it should be and no step was run since.
func (c *Controller) observe(ctx context.Context, s *service, to State) Observation {
	var o Observation
	err := c.call(ctx, s, observeTime, func(ctx context.Context) { o = s.Observe(ctx) })
	if err != nil {
		o = Observation{State: Unknown, Detail: err.Error()}
	}
	o.Detail = cut(o.Detail)
	s.presumed = false
	switch o.State {
	case Open, Standby, Closed:
		s.sure, s.seenAt = true, time.Now()
	default:
		o.State = Unknown
		if s.sure && (s.seen.State == Open) == (to == Open) && time.Since(s.seenAt) < patience {
			s.presumed = true
			o.State, o.Facts = s.seen.State, s.seen.Facts
			o.Detail = cut("not to be seen now: " + o.Detail)
		} else {
			s.sure = false
		}
	}
	moved := s.seen.State != o.State
	s.seen = o
	if moved {
		c.publish() // another service may go by it
	}
	return o
}

// apply runs the first most of the steps that bring s to a state, until one fails.
func (c *Controller) apply(ctx context.Context, s *service, d Decision, to State, steps []Step, most int) error {
	s.moving = true
	c.list(s, d, steps)
	for i := range steps[:min(most, len(steps))] {
		if err := c.run(ctx, s, d, to, &steps[i]); err != nil {
			return err
		}
	}
	return nil
}

// run runs a step. What is known may end it, but not if it closes something.
func (c *Controller) run(ctx context.Context, s *service, d Decision, to State, step *Step) error {
	s.sure = false
	stepCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !c.start(to, d, cancel) {
		return errMoved
	}
	limit := step.Timeout
	if limit <= 0 {
		limit = stepTime
	}
	began := time.Now()
	c.mark(s, step, func(e *evidence.Step) { e.State, e.Began, e.Milliseconds, e.Detail = stepRunning, began, 0, "" })
	c.publish()
	var detail string
	var failed error
	err := c.call(stepCtx, s, limit, func(ctx context.Context) { detail, failed = step.Run(ctx) })
	if err == nil {
		err = failed
	}
	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()

	took := time.Since(began)
	state := stepDone
	if err != nil {
		state, detail = stepFailed, err.Error()
	}
	c.mark(s, step, func(e *evidence.Step) {
		e.State, e.Milliseconds, e.Detail = state, float64(took.Microseconds())/1000, cut(detail)
	})
	c.publish()
	switch {
	case err == nil:
		if detail != "" {
			detail = ": " + cut(detail)
		}
		c.cfg.Log.Infof("camaster %s: %s: %s: done in %v%s", d.Version, s.Name(), step.Name, took.Round(10*time.Microsecond), detail)
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case stepCtx.Err() != nil:
		c.cfg.Log.Warningf("camaster %s: %s: %s: given up after %v: %v", d.Version, s.Name(), step.Name, took.Round(time.Millisecond), context.Cause(stepCtx))
		return errMoved
	}
	return fmt.Errorf("%s: %w", step.Name, err)
}

// start makes a step one that Know can end, unless it has to be ended already.
func (c *Controller) start(to State, d Decision, cancel context.CancelCauseFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.decide(); to != Closed && (now.To != d.To || now.Version != d.Version) {
		return false
	}
	c.running = &running{to: to, cancel: cancel}
	return true
}

// list shows the steps that are to come for a service in place of those that were.
func (c *Controller) list(s *service, d Decision, steps []Step) {
	c.note(func(r *Record) {
		if !c.change.listed {
			c.change.listed = true
			r.Steps = nil
		}
		var list []evidence.Step
		at := -1 // where they go: to where the first of those was
		for _, e := range r.Steps {
			if e.Service == s.Name() && (e.State != stepDone || slices.ContainsFunc(steps, func(p Step) bool { return p.Name == e.Name })) {
				if at < 0 {
					at = len(list)
				}
				continue
			}
			list = append(list, e)
		}
		if at < 0 {
			at = len(list)
		}
		var fresh []evidence.Step
		for _, p := range steps {
			fresh = append(fresh, evidence.Step{Version: d.Version.String(), Service: s.Name(), Name: p.Name, State: stepPlanned, Detail: cut(p.Detail)})
		}
		r.Steps = slices.Insert(list, at, fresh...)
		r.Steps = r.Steps[max(0, len(r.Steps)-maxSteps):]
	})
}

// mark changes a listed step.
func (c *Controller) mark(s *service, step *Step, f func(e *evidence.Step)) {
	c.note(func(r *Record) {
		r.Steps = slices.Clone(r.Steps)
		for i := range r.Steps {
			if e := &r.Steps[i]; e.Service == s.Name() && e.Name == step.Name {
				f(e)
			}
		}
	})
}

// plan asks a service how it would become something.
func (c *Controller) plan(s *service, o Observation, to State) ([]Step, error) {
	c.using <- struct{}{}
	defer func() { <-c.using }()
	if err := s.stuck(); err != nil {
		return nil, err
	}
	return s.Plan(o, to)
}

// fail notes why a service is not where it belongs, and when to try again.
func (c *Controller) fail(s *service, err error) {
	s.failures++
	s.again = time.Now().Add(min(backoffLast, backoffFirst<<min(s.failures-1, 10)))
	if p := cut(err.Error()); p != s.problem {
		s.problem = p
		c.cfg.Log.Errorf("camaster %s: %s: %v; it is tried again", c.current.Version, s.Name(), err)
	}
}

// well notes that a service is where it belongs.
func (s *service) well() { s.moving, s.problem, s.failures, s.again = false, "", 0, time.Time{} }

// later reports whether a service failed and is to be left alone for now.
func (s *service) later() bool { return time.Now().Before(s.again) }

// cut makes one short line of what came from outside.
func cut(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail-3], "") + "..."
	}
	return s
}
