package casync

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
)

// serveChanges answers what has changed since a generation of a session, when something
// has or the time is over.
func (s *Server) serveChanges(w http.ResponseWriter, r *http.Request) error {
	wait, err := waitOf(r)
	if err != nil {
		return err
	}
	generation, err := generationOf(r)
	if err != nil {
		return err
	}
	session := r.URL.Query().Get("session")
	var h head
	var files []cadir.File
	answer := func(g *generations) bool {
		h, files = g.since(session, generation)
		return h.Full || h.Generation != generation
	}
	if err := s.await(r.Context(), wait, answer); err != nil {
		return err
	}
	if h.Session == "" {
		return refuse(http.StatusServiceUnavailable, "the CA was not looked at yet")
	}
	if h.Files > 0 {
		done, err := s.stream(r.Context())
		if err != nil {
			return err
		}
		defer done()
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriterSize(s.paced(r.Context(), w, s.files), piece)
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(h); err != nil {
		return err
	}
	for _, f := range files {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return out.Flush()
}

// serveFiles sends what it was asked for and still has. What has changed since is left
// out, and the client asks for the changes again.
func (s *Server) serveFiles(w http.ResponseWriter, r *http.Request) error {
	controller := http.NewResponseController(w)
	if err := controller.SetReadDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return refuse(http.StatusInternalServerError, "%w", err)
	}
	var want asked
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&want); err != nil {
		return refuse(http.StatusBadRequest, "the list of files: %w", err)
	}
	if len(want.Files) > maxAsked {
		return refuse(http.StatusBadRequest, "%d files: %d at a time", len(want.Files), maxAsked)
	}
	if err := s.c.sourceFault(); err != nil {
		return err
	}
	done, err := s.stream(r.Context())
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	set, err := s.history.set, s.err
	s.mu.Unlock()
	if err == nil && set == nil {
		err = refuse(http.StatusServiceUnavailable, "ask for the changes first")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	archive := tar.NewWriter(s.paced(r.Context(), w, s.files))
	for _, a := range want.Files {
		f, ok := set.File(a.Path)
		if !ok || f.Sum != a.Sum {
			continue
		}
		data, err := s.c.Dir.Read(set, f)
		if err != nil {
			continue // replaced meanwhile
		}
		if err := s.sendFile(archive, a, f, data); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (s *Server) sendFile(archive *tar.Writer, a askedFile, f cadir.File, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.Mode), ModTime: f.Time, Format: tar.FormatPAX}
	if a.Offset > 0 && a.Offset <= f.Size && sha256.Sum256(data[:a.Offset]) == a.Prefix {
		data = data[a.Offset:]
		h.PAXRecords = map[string]string{paxOffset: strconv.FormatInt(a.Offset, 10)}
	}
	h.Size = int64(len(data))
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	if _, err := archive.Write(data); err != nil {
		return err
	}
	s.stats.files.Add(1)
	return nil
}

// serveCRL answers the CRL when it is not the one that is known, or the time is over.
func (s *Server) serveCRL(w http.ResponseWriter, r *http.Request) error {
	wait, err := waitOf(r)
	if err != nil {
		return err
	}
	name := cadir.CRL
	if s.c.InfraCRL {
		name = cadir.InfraCRL
	}
	known := r.URL.Query().Get("known")
	var f cadir.File
	var data []byte
	answer := func(g *generations) bool {
		f, _ = g.set.File(name)
		data = g.set.Data(name)
		return f.Sum.String() != known
	}
	if err := s.await(r.Context(), wait, answer); err != nil {
		return err
	}
	switch {
	case data == nil:
		return refuse(http.StatusNotFound, "the CA has no %s", name)
	case f.Sum.String() == known:
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	s.stats.crls.Add(1)
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	w.Header().Set(sumHeader, f.Sum.String())
	w.Header().Set(timeHeader, f.Time.UTC().Format(time.RFC3339Nano))
	_, err = io.Copy(s.paced(r.Context(), w, s.crls), bytes.NewReader(data))
	return err
}

// paced writes no faster than a limit, and gives up on who does not read.
func (s *Server) paced(ctx context.Context, w http.ResponseWriter, limit *rate.Limiter) io.Writer {
	return &pacedWriter{ctx, w, http.NewResponseController(w), limit, s}
}

type pacedWriter struct {
	ctx        context.Context
	w          io.Writer
	controller *http.ResponseController
	limit      *rate.Limiter
	server     *Server
}

func (p *pacedWriter) Write(data []byte) (written int, err error) {
	for len(data) > 0 {
		n := min(len(data), piece)
		if err := p.limit.WaitN(p.ctx, n); err != nil {
			return written, err
		}
		if err := p.controller.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return written, err
		}
		m, err := p.w.Write(data[:n])
		written += m
		p.server.stats.bytes.Add(uint64(m))
		if err != nil {
			return written, err
		}
		data = data[n:]
	}
	return written, nil
}
