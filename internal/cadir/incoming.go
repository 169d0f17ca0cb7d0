package cadir

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// incoming is a set that is to replace the one here.
type incoming struct {
	files   []File // all, sorted by path
	set     *Set
	tops    map[string]*content
	signed  map[string]*content // by path
	puts    []File              // those that are not here, in the order in which they are written
	removes []string            // those that are here and are no more
	cleaned []uint64            // serials of the certificates among those
}

// assemble makes a set of what is fetched and what is here already, and verifies it.
func (d *Dir) assemble(ctx context.Context, files []File, hash string) (*incoming, error) {
	if err := validFiles(files); err != nil {
		return nil, err
	}
	in := &incoming{files: files, tops: make(map[string]*content), signed: make(map[string]*content, len(files))}
	if err := d.looking.take(ctx); err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(files))
	var wanted []File
	for _, f := range files {
		there[f.Path] = true
		if k := d.knownAt(f.Path); k != nil && k.sum == f.Sum {
			in.put(f.Path, k)
		} else {
			wanted = append(wanted, f)
		}
	}
	for p, k := range d.signed {
		if !there[p] {
			in.removes = append(in.removes, p)
			if c, ok := k.value.(certificate); ok {
				in.cleaned = append(in.cleaned, c.serial)
			}
		}
	}
	for p := range d.tops {
		if !there[p] {
			in.removes = append(in.removes, p)
		}
	}
	d.looking.release()
	slices.Sort(in.removes)

	for _, f := range wanted {
		if t, ok := topNamed(f.Path); ok {
			data, err := d.readBlob(f)
			if err != nil {
				return nil, err
			}
			in.put(f.Path, newTop(t.name, data))
			in.puts = append(in.puts, f)
		}
	}
	if err := d.assembleSigned(ctx, in, wanted); err != nil {
		return nil, err
	}
	slices.SortFunc(in.puts, func(a, b File) int {
		if n := order(a.Path) - order(b.Path); n != 0 {
			return n
		}
		return strings.Compare(a.Path, b.Path)
	})
	var err error
	all := contents{in.tops, maps.All(in.signed), len(in.signed)}
	if in.set, err = all.verify(); err != nil {
		return nil, err
	}
	in.set.Files, in.set.Hash = files, HashOf(files)
	if in.set.Hash != hash {
		return nil, fmt.Errorf("the set has the hash %.12s, and %.12s was announced", in.set.Hash, hash)
	}
	return in, nil
}

// validFiles says what is wrong with a list of files.
func validFiles(files []File) error {
	if len(files) > maxSigned+len(tops) {
		return fmt.Errorf("%d files: %d are the most", len(files), maxSigned+len(tops))
	}
	for i, f := range files {
		if most, ok := MaxSize(f.Path); !ok || f.Size < 0 || f.Size > most {
			return fmt.Errorf("%.300q of %d bytes is no file of a CA", f.Path, f.Size)
		}
		if i > 0 && files[i-1].Path >= f.Path {
			return fmt.Errorf("%q comes after %q: a set is sorted by path", f.Path, files[i-1].Path)
		}
	}
	return nil
}

// order is a file's place among those that are written.
func order(path string) int {
	for i, t := range tops {
		if t.name == path {
			return i
		}
	}
	return len(tops)
}

func (in *incoming) put(path string, c *content) {
	if _, ok := topNamed(path); ok {
		in.tops[path] = c
	} else {
		in.signed[path] = c
	}
}

// assembleSigned reads and verifies the certificates that are fetched, and those that
// are here if they were verified by another bundle.
func (d *Dir) assembleSigned(ctx context.Context, in *incoming, wanted []File) error {
	by := in.tops[certFile]
	if by == nil || by.err != nil {
		return nil // verify says so
	}
	bundle := by.value.(*bundle)
	fetched := make(map[string]File)
	for _, f := range wanted {
		if _, ok := topNamed(f.Path); !ok {
			fetched[f.Path] = f
			in.puts = append(in.puts, f)
		}
	}
	read := make([]string, 0, len(fetched))
	for p := range fetched {
		read = append(read, p)
	}
	for p, c := range in.signed {
		if c.by != bundle.sum {
			read = append(read, p)
		}
	}
	var mu sync.Mutex // guards in.signed and failed
	var failed error
	each(ctx, d.workers, read, func(p string) {
		var data []byte
		var err error
		if f, ok := fetched[p]; ok {
			data, err = d.readBlob(f)
		} else {
			data, _, err = readRegular(d.file(p), maxCertificate)
		}
		var c *content
		if err == nil {
			c = newSigned(p, data, bundle)
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = err
			return
		}
		in.signed[p] = c
	})
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}
