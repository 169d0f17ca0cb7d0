package cadir

import (
	"time"
)

// following is whether a cadir may be written from the camaster, and what came of it.
type following struct {
	on      bool
	replace bool      // also where this one is no older state of that one
	since   time.Time // when that was said
	source  string    // certname
	synced  time.Time // when it was last the same
	err     string    // why it is not now
}

// Follow lets Replace write the cadir. With replace also where the cadir has what the
// camaster has not, once: that is an operator's rejoin. A Dir follows nobody at first,
// and no longer once it is unsealed.
func (d *Dir) Follow(replace bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := &d.follow; !f.on || replace && !f.replace {
		*f = following{on: true, replace: replace, since: time.Now(), source: f.source, synced: f.synced}
	}
}

// Unfollow ends that. A replacement under way is finished.
func (d *Dir) Unfollow() { d.setFollow(following{}) }

// Following reports whether the cadir may be written from the camaster.
func (d *Dir) Following() bool { return d.followed().on }

// NoteSync says that the cadir was the same as source's now, or why it is not. source is
// the certname, "" for nobody.
func (d *Dir) NoteSync(source string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.follow
	if !f.on { // it ended meanwhile
		return
	}
	if f.source != source {
		f.source, f.synced = source, time.Time{}
	}
	if f.err = ""; err != nil {
		f.err = err.Error()
		return
	}
	if source != "" {
		f.synced, f.replace = time.Now(), false
	}
}

func (d *Dir) setFollow(f following) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.follow = f
}

func (d *Dir) followed() following {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.follow
}
