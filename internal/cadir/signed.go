package cadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

// stats looks at each file of signed/, forgets those that are gone and returns those
// that are to be read.
func (d *Dir) stats(dir string) (read []string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	bundle, _ := d.bundle()
	fd, there := int(f.Fd()), make(map[string]struct{}, len(names))
	for _, name := range names {
		if !isSigned(name) {
			continue
		}
		now, err := statAt(fd, name)
		if err != nil {
			return nil, err
		}
		if now.zero() {
			continue
		}
		p := signedDir + "/" + name
		if !now.regular() {
			return nil, fmt.Errorf("%s is no regular file: put the file itself there", p)
		}
		there[p] = struct{}{}
		if len(there) > maxSigned {
			return nil, fmt.Errorf("%s/ has more than %d certificates", signedDir, maxSigned)
		}
		was, ok := d.signed[p]
		if ok && was.stamp == now && was.content != nil && was.by == bundle.sum {
			continue
		}
		if !ok {
			d.signed[p] = known{} // counted as one to be read
			d.added = append(d.added, p)
		}
		read = append(read, p)
	}
	for p := range d.signed {
		if _, ok := there[p]; !ok {
			delete(d.signed, p)
			d.checked = false
		}
	}
	return read, nil
}

// readSigned reads and verifies certificates, with all processors.
func (d *Dir) readSigned(ctx context.Context, paths []string, by *bundle) error {
	if len(paths) == 0 {
		return nil
	}
	d.checked = false
	var mu sync.Mutex // guards d.signed, d.reads and failed
	var failed error
	read := func(p string) {
		data, now, err := readRegular(d.file(p), maxCertificate)
		var c *content
		mu.Lock()
		was := d.signed[p].content
		mu.Unlock()
		if err == nil {
			c = d.contentOf(p, data, by, was)
		}
		mu.Lock()
		defer mu.Unlock()
		d.reads++
		switch {
		case err == nil:
			d.signed[p] = known{now, c}
		case errors.Is(err, fs.ErrNotExist):
			delete(d.signed, p)
		case failed == nil:
			failed = fmt.Errorf("reading %s: %w", p, err)
		}
	}
	each(ctx, d.workers, paths, read)
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}

// contentOf is newSigned, but for what is verified already under the same name.
func (d *Dir) contentOf(p string, data []byte, by *bundle, was *content) *content {
	sum := sumOf(data)
	for _, c := range []*content{was, d.staged[sum]} {
		if c != nil && c.sum == sum && c.by == by.sum {
			if cert, ok := c.value.(certificate); ok && strings.EqualFold(cert.name+".pem", path.Base(p)) {
				return c
			}
		}
	}
	return newSigned(p, data, by)
}

// each calls f for each path, some at the same time, until ctx ends.
func each(ctx context.Context, workers int, paths []string, f func(string)) {
	if len(paths) < 8 {
		workers = 1
	}
	var next atomic.Int64
	work := func() {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(paths) {
				return
			}
			f(paths[i])
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}
