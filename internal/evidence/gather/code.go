package gather

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// Limits of what is read of the code.
const (
	maxEnvironments = 256
	maxRefs         = 32 << 20 // bytes of packed-refs
	maxSmall        = 1 << 20  // bytes of any other file
	maxRevision     = 64       // bytes of what a file of one's own says
	// shown of an object's name, in hexadecimal digits: two revisions of one repository
	// that agree in these are the same.
	shown = 12
)

// environmentName is what Puppet allows (puppet's environments: \A[a-z0-9_]+\Z).
var environmentName = regexp.MustCompile(`^[a-z0-9_]{1,128}$`)

// object is a git object's name, by SHA-1 or SHA-256.
var object = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)

// code reads which revision each environment has, without running anything.
type code struct {
	dir  string
	refs map[string]packedRefs // by path
}

// packedRefs is git's file of refs, as far as it was asked for.
type packedRefs struct {
	stamp stamp
	names map[string]string
}

// look returns the environments by name, at most 256, production among them. It is called
// by one goroutine at a time.
func (c *code) look(ctx context.Context) []evidence.Environment {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if environmentName.MatchString(e.Name()) && isDir(filepath.Join(c.dir, e.Name())) {
			names = append(names, e.Name())
		}
	}
	if len(names) > maxEnvironments {
		i := slices.Index(names, "production")
		if i >= maxEnvironments {
			names[maxEnvironments-1] = "production"
		}
		names = names[:maxEnvironments]
	}
	slices.Sort(names)
	var envs []evidence.Environment
	for _, n := range names {
		if ctx.Err() != nil {
			return envs
		}
		envs = append(envs, evidence.Environment{Name: n, Revision: c.revision(filepath.Join(c.dir, n))})
	}
	return envs
}

// isDir follows a link: an environment may be one.
func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// revision is that of an environment's directory, "" if nothing says it: git's, else
// what r10k or g10k has written of its deployment, else a file's.
func (c *code) revision(dir string) string {
	if r := c.git(dir); r != "" {
		return r
	}
	for _, name := range []string{".r10k-deploy.json", ".g10k-deploy.json"} {
		data, err := readLimited(filepath.Join(dir, name), maxSmall)
		if err != nil {
			continue
		}
		var deploy struct {
			Signature string `json:"signature"`
		}
		if json.Unmarshal(data, &deploy) == nil && deploy.Signature != "" {
			return plainRevision(deploy.Signature)
		}
	}
	for _, name := range []string{"REVISION", ".revision"} {
		if data, err := readLimited(filepath.Join(dir, name), maxSmall); err == nil {
			if first, _, _ := bytes.Cut(data, []byte("\n")); len(bytes.TrimSpace(first)) > 0 {
				return plainRevision(string(first))
			}
		}
	}
	return ""
}

// plainRevision keeps to what fits a table.
func plainRevision(s string) string {
	s = strings.TrimSpace(s)
	if object.MatchString(s) {
		return s[:shown]
	}
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxRevision)]
}

// git reads HEAD of a work tree (gitrepository-layout(5)).
func (c *code) git(dir string) string {
	at := filepath.Join(dir, ".git")
	if fi, err := os.Stat(at); err != nil {
		return ""
	} else if !fi.IsDir() { // of a worktree, or a submodule: gitdir: PATH
		text, ok := strings.CutPrefix(firstOf(at), "gitdir: ")
		if !ok {
			return ""
		}
		at = from(dir, text)
	}
	common := at
	if text := firstOf(filepath.Join(at, "commondir")); text != "" {
		common = from(at, text)
	}
	head := firstOf(filepath.Join(at, "HEAD"))
	// A ref may point at another, which nobody does more than once.
	for range 3 {
		if object.MatchString(head) {
			return head[:shown]
		}
		ref, ok := strings.CutPrefix(head, "ref: ")
		if ref = strings.TrimSpace(ref); !ok || !strings.HasPrefix(ref, "refs/") || strings.Contains(ref, "..") {
			return ""
		}
		if head = firstOf(filepath.Join(at, ref)); head == "" {
			head = firstOf(filepath.Join(common, ref))
		}
		if head == "" {
			head = c.packed(filepath.Join(common, "packed-refs"), ref)
		}
	}
	return ""
}

func from(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// firstOf is the first line of a small file, "" if there is none.
func firstOf(path string) string {
	data, err := readLimited(path, maxSmall)
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.TrimRight(string(first), "\r ")
}

// packed looks a ref up in packed-refs, which is read again when it changes.
func (c *code) packed(path, ref string) string {
	now := stampOf(path)
	known := c.refs[path]
	if known.stamp != now || known.names == nil || len(known.names) > maxEnvironments {
		known = packedRefs{now, make(map[string]string)}
	}
	object, ok := known.names[ref]
	if !ok {
		object = findRef(path, ref)
		known.names[ref] = object
		if c.refs == nil || len(c.refs) > maxEnvironments {
			c.refs = make(map[string]packedRefs)
		}
		c.refs[path] = known
	}
	return object
}

func findRef(path, ref string) string {
	data, err := readLimited(path, maxRefs)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		name, of, ok := strings.Cut(lines.Text(), " ")
		if ok && of == ref && object.MatchString(name) {
			return name
		}
	}
	return ""
}
