package cadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Fulltime is how long files in signed/ are believed to be as they were while the
// directory is: puppetserver replaces them by rename, which shows there, and what
// changes one in place is found after this.
const fulltime = 30 * time.Second

// tick is how near to now a directory's time may be without being believed: kernels
// count in up to 10 ms, and what is added within the same tick shows nowhere.
const tick = 100 * time.Millisecond

// fresh is how young a change is that may be half of one: puppetserver 7 appends to its
// inventory in more than one write, and a CA is restored file by file.
const fresh = 2 * time.Second

// UnfinishedError is a look that ended with its context. The next one goes on there.
type UnfinishedError struct {
	Done, Total int // certificates
	Err         error
}

func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("it is not verified yet: %d of %d certificates are (%v)", e.Done, e.Total, e.Err)
}

func (e *UnfinishedError) Unwrap() error { return e.Err }

// Look says what the cadir holds, verified, or why that is no set. Where nothing has
// changed it costs a dozen stats; a new certificate, one of each certificate and the
// reading of that one. The first look reads all.
func (d *Dir) Look(ctx context.Context) (*Set, error) { return d.look(ctx, false) }

// Verify is Look that believes no directory, and looks at each file.
func (d *Dir) Verify(ctx context.Context) (*Set, error) { return d.look(ctx, true) }

func (d *Dir) look(ctx context.Context, full bool) (*Set, error) {
	if err := d.looking.take(ctx); err != nil {
		return nil, &UnfinishedError{Err: err}
	}
	defer d.looking.release()
	for try := 0; ; try++ {
		set, err := d.once(ctx, full)
		if err == nil || ctx.Err() != nil || try == 4 || !d.unsettled(err) {
			return set, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond << try):
		}
	}
}

// unsettled reports whether an error may be of a change that is being made.
func (d *Dir) unsettled(err error) bool {
	if errors.Is(err, errMoved) || errors.Is(err, fs.ErrNotExist) {
		return true
	}
	newest := d.listed.changed
	for _, k := range d.tops {
		newest = max(newest, k.changed)
	}
	since := time.Since(time.Unix(0, newest))
	return since < fresh && since > -fresh
}

func (d *Dir) once(ctx context.Context, full bool) (*Set, error) {
	if err := d.scan(ctx, full); err != nil {
		if ctx.Err() != nil {
			return nil, d.unfinished(ctx)
		}
		return nil, fmt.Errorf("cadir %q: %w", d.path, err)
	}
	if !d.checked {
		d.set, d.problem = d.check()
		d.checked = true
	}
	return d.set, d.problem
}

func (d *Dir) unfinished(ctx context.Context) error {
	e := &UnfinishedError{Total: len(d.signed), Err: context.Cause(ctx)}
	for _, k := range d.signed {
		if k.content != nil {
			e.Done++
		}
	}
	return e
}

// check makes a set of what was read.
func (d *Dir) check() (*Set, error) {
	s, err := d.contents().verify()
	if err != nil {
		return nil, fmt.Errorf("cadir %q: %w", d.path, err)
	}
	d.order = merge(d.order, d.added)
	d.added = nil
	s.Files = make([]File, 0, len(d.order))
	order := d.order[:0]
	for _, p := range d.order {
		k, ok := d.tops[p]
		if !ok {
			k, ok = d.signed[p]
		}
		if !ok {
			continue // removed
		}
		order = append(order, p)
		f := File{p, k.content.size, k.mode, k.time(), k.sum}
		if p == serialFile {
			f.Mode = d.serialMode(k.stamp)
		}
		s.Files = append(s.Files, f)
	}
	d.order = order
	s.Hash = HashOf(s.Files)
	return s, nil
}

// merge adds paths to sorted ones, each once: to sort 50 000 anew for each that comes
// takes longer than all else.
func merge(sorted, added []string) []string {
	if len(added) == 0 {
		return sorted
	}
	slices.Sort(added)
	out := make([]string, 0, len(sorted)+len(added))
	for len(sorted) > 0 && len(added) > 0 {
		if sorted[0] <= added[0] {
			out, sorted = append(out, sorted[0]), sorted[1:]
		} else {
			out, added = append(out, added[0]), added[1:]
		}
	}
	return slices.Compact(append(append(out, sorted...), added...))
}

func (d *Dir) contents() contents {
	c := contents{tops: make(map[string]*content, len(d.tops)), count: len(d.signed)}
	for p, k := range d.tops {
		c.tops[p] = k.content
	}
	if !d.listed.zero() {
		c.signed = func(yield func(string, *content) bool) {
			for p, k := range d.signed {
				if !yield(p, k.content) {
					return
				}
			}
		}
	}
	return c
}

// scan brings tops and signed up to what is on disk.
func (d *Dir) scan(ctx context.Context, full bool) error {
	for _, name := range readFirst {
		if err := d.readTop(name); err != nil {
			return err
		}
	}
	if err := d.list(ctx, full); err != nil {
		return err
	}
	for _, name := range readLast {
		if err := d.readTop(name); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// readTop reads a file of the cadir itself if it is not as it was.
func (d *Dir) readTop(name string) error {
	path := d.file(name)
	now, err := statPath(path)
	if err != nil {
		return err
	}
	was, ok := d.tops[name]
	switch {
	case now.zero():
		if ok {
			delete(d.tops, name)
			d.checked = false
		}
		return nil
	case ok && was.stamp == now:
		return nil
	case !now.regular():
		return fmt.Errorf("%s is no regular file: put the file itself there", name)
	}
	t, _ := topNamed(name)
	data, now, err := d.readAny(path, now, t.max)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	d.reads++
	c := newTop(name, data)
	if ok && was.sum == c.sum {
		c = was.content
	} else {
		d.checked = false
	}
	if ok && (was.mode != now.mode || was.modified != now.modified) {
		d.checked = false
	}
	if !ok {
		d.added = append(d.added, name)
	}
	d.tops[name] = known{now, c}
	return nil
}

// list looks at the files in signed/ if that may have changed, and reads those that have.
func (d *Dir) list(ctx context.Context, full bool) error {
	dir := d.file(signedDir)
	now, err := statPath(dir)
	if err != nil {
		return err
	}
	bundle, _ := d.bundle()
	if now.zero() || bundle == nil {
		if !d.listed.zero() || len(d.signed) > 0 {
			clear(d.signed)
			d.listed, d.checked = stamp{}, false
		}
		if bundle == nil && !now.zero() {
			d.listed = now // the set is none because of something else
			d.listed.changed = 0
		}
		return nil
	}
	if !now.directory() {
		return fmt.Errorf("%s is no directory", signedDir)
	}
	since := time.Since(d.full)
	if !full && d.listed == now && since < fulltime && since >= 0 && !d.rereads(bundle) {
		return nil
	}
	read := time.Now()
	changed, err := d.stats(dir)
	if err != nil {
		return err
	}
	if err := d.readSigned(ctx, changed, bundle); err != nil {
		return err
	}
	if d.full = read; read.Sub(time.Unix(0, now.changed)) < tick {
		now.changed = 0 // look again
	}
	if d.listed.zero() {
		d.checked = false
	}
	d.listed = now
	return nil
}

// bundle is the CA's certificates, as they were read.
func (d *Dir) bundle() (*bundle, bool) {
	k, ok := d.tops[certFile]
	if !ok || k.err != nil {
		return nil, false
	}
	b, ok := k.value.(*bundle)
	return b, ok
}

// rereads reports whether certificates are to be verified by another bundle.
func (d *Dir) rereads(b *bundle) bool {
	for _, k := range d.signed {
		return k.content == nil || k.by != b.sum
	}
	return false
}
