package casync

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// batch bounds what is asked for at once, in bytes: what is cut off is asked for again.
const batch = 8 << 20

// errMoved is a source whose files changed since it listed them.
var errMoved = errors.New("the camaster's CA changes while it is fetched")

// fetchAll fetches what the cadir has not, and forgets what was fetched for an older set.
func (p *Puller) fetchAll(ctx context.Context, files []cadir.File) error {
	missing, err := p.c.Dir.Missing(ctx, files)
	if err != nil {
		return err
	}
	if err := p.c.Dir.Discard(files); err != nil {
		return fmt.Errorf("removing what was fetched before: %w", err)
	}
	local, _ := p.c.Dir.Look(ctx) // nil: nothing is there to build on
	for len(missing) > 0 {
		n, size := 0, int64(0)
		for n < len(missing) && n < maxAsked && (n == 0 || size+missing[n].Size <= batch) {
			size += missing[n].Size
			n++
		}
		if err := p.fetch(ctx, missing[:n], local); err != nil {
			return err
		}
		missing = missing[n:]
	}
	return nil
}

// fetch fetches some files, and keeps each as it comes.
func (p *Puller) fetch(ctx context.Context, files []cadir.File, local *cadir.Set) error {
	var want asked
	left := make(map[string]cadir.File, len(files))
	prefix := make(map[string][]byte)
	for _, f := range files {
		left[f.Path] = f
		a := askedFile{Path: f.Path, Sum: f.Sum}
		if local != nil {
			if data := local.Data(f.Path); len(data) >= 1024 && int64(len(data)) < f.Size {
				a.Offset, a.Prefix, prefix[f.Path] = int64(len(data)), sha256.Sum256(data), data
			}
		}
		want.Files = append(want.Files, a)
	}
	body, err := json.Marshal(want)
	if err != nil {
		return err
	}
	err = p.client.do(ctx, http.MethodPost, filesPath, nil, bytes.NewReader(body), 0, func(r *http.Response) error {
		for archive := tar.NewReader(r.Body); ; {
			h, err := archive.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			f, ok := left[h.Name]
			if !ok {
				return fmt.Errorf("it sends %.300q, which was not asked for", h.Name)
			}
			var begin []byte
			if offset := h.PAXRecords[paxOffset]; offset != "" {
				if begin = prefix[f.Path]; offset != strconv.Itoa(len(begin)) {
					return fmt.Errorf("it sends %s from %.20q on, which was not asked for", f.Path, offset)
				}
			}
			if err := p.c.Dir.Put(f, io.MultiReader(bytes.NewReader(begin), archive)); err != nil {
				return err
			}
			delete(left, f.Path)
			p.count(func(s *PullerStats) { s.Files++; s.Bytes += uint64(h.Size) })
		}
	})
	if err == nil && len(left) > 0 {
		err = errMoved
	}
	return err
}
