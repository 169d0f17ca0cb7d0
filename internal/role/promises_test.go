package role_test

import (
	"time"

	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// closesWithin is how long a live member may take to close what must not be open, with
// looks that take three seconds and steps that take five, each at most twice in a row.
const closesWithin = time.Minute

// atOpen is called when a service opens: may it, under what the record says?
//
//   - the newest version that the member was given, and the one that it opens under,
//     name this host and hand nothing over;
//   - it never opened under a newer one, and knows of none that names another;
//   - since the member started it heard all nodes, and took what they knew; or the
//     version was written for this very start;
//   - the record on disk says all that before it happens.
func (h *host) atOpen(s *disked, by *process) {
	r := h.record()
	w := h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	v := r.Opened
	bad := func(format string, args ...any) {
		w.t.Errorf("%s opens %s under %s: "+format, append([]any{h.host, s.name, v}, args...)...)
		w.t.Logf("newest %+v, opened %s in %s, data %s; given %+v, heard %v", r.Newest, r.Opened, r.OpenedBoot, r.Data, h.delivered, h.heard)
	}
	value, written := w.values[v]
	switch {
	case !written:
		bad("nobody wrote that")
	case value.Host != h.host || value.Handover != "":
		bad("that says %+v", value)
	case r.Newest.Version != v || r.OpenedBoot != h.bootID() || r.Data != role.Own:
		bad("the record does not say so")
	case v.Compare(h.most) < 0:
		bad("it was open under %s", h.most)
	case h.known && v.Compare(h.delivered.Version) < 0 && (h.delivered.Value.Host != h.host || h.delivered.Value.Handover != ""):
		bad("it knows %s, %+v", h.delivered.Version, h.delivered.Value)
	}
	if !h.all && (value.Boot == 0 || value.Boot != by.start) {
		bad("it has not heard all nodes since it was started")
	}
	switch {
	case h.inBoot[v]:
		w.tally.reopened++
	case v != h.most && !h.most.IsZero():
		w.tally.flips++
	}
	w.tally.opened++
	h.most, h.inBoot[v], h.under[s.name] = v, true, v
	delete(h.byHand, s.name)
	h.alone(v)
}

// names reports whether a version leaves the role open on a host. The caller has the
// lock.
func (w *world) names(v register.Version, host string) bool {
	return w.values[v].Host == host && w.values[v].Handover == ""
}

// alone sees that nobody else is open under v. The caller has the lock.
func (h *host) alone(v register.Version) {
	for _, o := range h.w.hosts {
		for name, under := range o.under {
			if o != h && under == v && o.power {
				h.w.t.Errorf("%s opens under %s, and the %s of %s is open under it", h.host, v, name, o.host)
			}
		}
	}
}

// look sees what is so at any time.
func (w *world) look() {
	for _, h := range w.hosts {
		if !h.power {
			continue
		}
		h.machine.mu.Lock()
		states := make(map[string]role.State)
		for _, s := range h.svcs {
			if s.follows == "" {
				states[s.name] = s.state
			}
		}
		h.machine.mu.Unlock()
		var status evidence.Role
		if h.p != nil {
			status = h.p.ctl.Status()
		}
		w.mu.Lock()
		h.lookAt(states, status)
		w.mu.Unlock()
	}
}

// lookAt has the world's lock.
func (h *host) lookAt(states map[string]role.State, status evidence.Role) {
	w := h.w
	open := false
	for name, s := range states {
		if s == role.Open {
			open = true
			continue
		}
		if !h.under[name].IsZero() || h.byHand[name] {
			w.tally.closed++
		}
		delete(h.under, name)
		delete(h.byHand, name)
	}
	// The services of a host that was booted start when the member has decided: what is
	// open on the disk then is what the register says.
	if !h.units && h.p != nil && decided(status) {
		h.units = true
		if open && status.State != evidence.Open && status.State != evidence.Opening && status.State != evidence.Failed && len(h.byHand) == 0 {
			w.t.Errorf("%s starts its services, and they are open: %v, %+v", h.host, states, status)
		}
	}
	if status.State == evidence.Open {
		if v, err := register.ParseVersion(status.Version); err != nil || !w.names(v, h.host) {
			w.t.Errorf("%s is open as it says, under %s: %+v", h.host, status.Version, w.values[v])
		}
	}
	// What was opened is closed again in bounded time once a member knows better; and
	// what a boot of the host finds open, until it is decided on.
	untouched := status.State == evidence.Waiting && status.Version == "0" && status.Opened == "" && h.delivered.Version.IsZero()
	knows := !untouched && h.known && h.delivered.Version.Compare(h.most) >= 0 && !w.names(h.delivered.Version, h.host)
	undecided := !h.units && len(h.inBoot) == 0 && !h.all && (h.delivered.Value.Boot == 0 || h.p != nil && h.delivered.Value.Boot != h.p.start)
	if open && h.p != nil && (knows || undecided) {
		if h.wrong.IsZero() {
			h.wrong = time.Now()
		}
		if d := time.Since(h.wrong); d > closesWithin {
			w.t.Errorf("%s has known %+v for %v, and is open: %v, %+v", h.host, h.delivered, d, states, status)
		}
	} else {
		h.wrong = time.Time{}
	}
}

// decided reports whether services may be started.
func decided(r evidence.Role) bool {
	if r.State == evidence.Open {
		return true
	}
	for _, s := range r.Services {
		if s.State == "open" || s.State == "unknown" {
			return false
		}
	}
	return true
}

// ends says what is wrong with a host when nothing is in the way any more; "" if nothing
// is. A former camaster may wait for its rejoining.
func (w *world) ends(h *host, r evidence.Role, former bool) string {
	v, version, _ := camaster.Of(w.nodes[0].state)
	open := h.anyOpen()
	switch {
	case r.Version != version.String():
		return "it does not know the newest version"
	case v.Host == h.host && v.Handover == "":
		if r.State != evidence.Open || h.states() != "[open open open open]" || r.Opened != r.Version {
			return "it should be open"
		}
	case open:
		return "it should be closed"
	case v.Host == "" || v.Host == h.host:
		if r.State != evidence.Closed {
			return "it should be closed"
		}
	case r.Former && former:
		if r.State != evidence.Closed {
			return "it should be closed"
		}
	case r.Former:
		return "it should have rejoined"
	case r.State != evidence.Standby || h.states() != "[standby standby standby standby]":
		return "it should be a standby"
	}
	if h.p.ctl.Status().Rejoin != nil && r.Rejoin.State == "done" {
		w.tally.rejoins++
	}
	return ""
}
