package role

import (
	"reflect"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// publish makes Status say what is so now.
func (c *Controller) publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, r := c.current, &c.record
	now := evidence.Role{
		Version: d.Version.String(),
		Former:  d.Former,
		Unclean: c.unclean,
		Boot:    c.known.Boot,
		Waits:   c.known.Waits,
		Steps:   slices.Clone(r.Steps),
	}
	if !r.Opened.IsZero() {
		now.Opened = r.Opened.String()
	}
	if r.Rejoin != nil {
		rejoin := *r.Rejoin
		now.Rejoin = &rejoin
	}
	for _, s := range c.services {
		e := evidence.Service{Name: s.Name(), State: string(s.seen.State), Detail: s.seen.Detail}
		if s.problem != "" {
			e.Detail = s.problem
		}
		now.Services = append(now.Services, e)
	}
	now.State, now.Reason = c.state()
	if reflect.DeepEqual(now, c.status) {
		return
	}
	c.status = now
	c.cfg.Changed()
}

// state is the role's, and why it is not open. The caller has the lock.
func (c *Controller) state() (state, reason string) {
	d := c.current
	if !c.looked {
		return evidence.Waiting, "the member has just started, and has yet to look at its services"
	}
	if d.Untouched {
		return evidence.Waiting, join(d.Reason, c.trouble)
	}
	open, closed, standby, moving, problem := 0, 0, 0, false, ""
	for _, s := range c.services {
		switch s.seen.State {
		case Open:
			open++
		case Closed:
			closed++
		case Standby:
			standby++
		}
		moving = moving || s.moving
		if s.problem != "" && problem == "" {
			problem = s.Name() + ": " + s.problem
		}
	}
	if d.To == Open {
		switch {
		case open == len(c.services) && c.record.Opened == d.Version && c.record.OpenedBoot == c.cfg.BootID:
			return evidence.Open, c.trouble
		case c.trouble != "":
			return evidence.Failed, c.trouble
		case problem != "":
			return evidence.Failed, problem
		case d.Hold:
			return evidence.Waiting, d.Reason
		case c.waits != "":
			return evidence.Opening, c.waits
		}
		for _, s := range c.services {
			if s.seen.State != Open {
				return evidence.Opening, s.Name() + " is " + string(s.seen.State) + detail(s.seen.Detail)
			}
		}
		return evidence.Opening, ""
	}
	reason = join(join(d.Reason, c.waits), c.trouble)
	shut := closed+standby == len(c.services)
	switch {
	case problem != "" && (!shut || d.To == Closed || d.State == evidence.Standby):
		return evidence.Failed, problem
	case !shut || moving && d.To == Closed:
		return evidence.Closing, reason
	case c.record.damaged != nil:
		return evidence.Failed, reason // somebody has to put that right
	case c.handing(d) && c.record.Data == Own && c.waits == "" && c.record.damaged == nil:
		return evidence.Closing, reason // it is yet to be seen whether that was clean
	case d.State == evidence.Standby && !c.change.follows:
		return evidence.Closed, join("it is becoming a standby", c.trouble)
	}
	return d.State, join(reason, problem)
}

// detail is what is added to a state.
func detail(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}
