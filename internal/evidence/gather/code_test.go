package gather_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// revisions looks at a host's environments.
func (h *host) revisions() map[string]string {
	h.t.Helper()
	h.Environments = h.path("environments")
	m := make(map[string]string)
	for _, e := range h.gatherer().Look(context.Background()).Code {
		m[e.Name] = e.Revision
	}
	return m
}

func (h *host) git(dir string, args ...string) string {
	h.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.net", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.net")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("git %s: %s: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// What the git binary makes is read without it.
func TestRevisionsOfGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("NO GIT: what git itself makes is not tried")
	}
	h := newHost(t)
	production := h.path("environments/production")
	if err := os.MkdirAll(production, 0o755); err != nil {
		t.Fatal(err)
	}
	h.git(production, "init", "-q", "-b", "production")
	h.git(production, "commit", "-q", "--allow-empty", "-m", "one")
	head := func() string { return h.git(production, "rev-parse", "HEAD")[:12] }
	if diff := cmp.Diff(map[string]string{"production": head()}, h.revisions()); diff != "" {
		t.Error("a branch: ", diff)
	}
	h.git(production, "pack-refs", "--all")
	if diff := cmp.Diff(map[string]string{"production": head()}, h.revisions()); diff != "" {
		t.Error("packed: ", diff)
	}
	// A worktree of the same repository, whose branch is packed; and one with no branch.
	h.git(production, "worktree", "add", "-q", "-b", "test", "../test")
	h.git(production, "pack-refs", "--all")
	h.git(h.path("environments/test"), "commit", "-q", "--allow-empty", "-m", "two")
	h.git(production, "worktree", "add", "-q", "--detach", "../detached", "test")
	two := h.git(h.path("environments/test"), "rev-parse", "HEAD")[:12]
	if two == head() {
		t.Fatal("the test makes no second commit")
	}
	want := map[string]string{"production": head(), "test": two, "detached": two}
	if diff := cmp.Diff(want, h.revisions()); diff != "" {
		t.Error("worktrees: ", diff)
	}
}

func TestRevisions(t *testing.T) {
	const sha = "0123456789abcdef0123456789abcdef01234567"
	long := strings.Repeat("0123456789abcdef", 4)
	h := newHost(t)
	write := func(name, data string) { h.write("environments/"+name, []byte(data)) }
	write("r10k/.r10k-deploy.json", `{"name":"r10k","signature":"`+sha+`","started_at":"2026-01-01","deploy_success":true}`)
	write("g10k/.g10k-deploy.json", `{"name":"g10k","signature":"`+sha+`"}`)
	write("file/REVISION", "\n")
	write("file/.revision", "v1.2.3 \nsecond line\n")
	write("strange/REVISION", "a b\x01\xff"+strings.Repeat("c", 100))
	write("sha256/.git/HEAD", long+"\n")
	write("both/.git/HEAD", "ref: refs/heads/x\n")
	write("both/.git/refs/heads/x", sha+"\n")
	write("both/.r10k-deploy.json", `{"signature":"ffffffffffffffffffffffffffffffffffffffff"}`)
	write("packed/.git/HEAD", "ref: refs/heads/x/y\n")
	write("packed/.git/packed-refs", "# pack-refs with: peeled fully-peeled sorted\nffffffffffffffffffffffffffffffffffffffff refs/heads/x\n"+sha+" refs/heads/x/y\n^"+sha+"\n")
	write("symbolic/.git/HEAD", "ref: refs/heads/a\n")
	write("symbolic/.git/refs/heads/a", "ref: refs/heads/b\n")
	write("symbolic/.git/refs/heads/b", sha+"\n")
	write("loop/.git/HEAD", "ref: refs/heads/a\n")
	write("loop/.git/refs/heads/a", "ref: refs/heads/a\n")
	write("outside/.git/HEAD", "ref: refs/../../../symbolic/.git/refs/heads/b\n")
	write("unborn/.git/HEAD", "ref: refs/heads/none\n")
	write("unborn/REVISION", "by file")
	write("broken/.r10k-deploy.json", `{"signature":`)
	write("nothing/x", "")
	write("Not-an-environment/REVISION", "x")
	write("a_file", "x")
	if err := os.Symlink(h.path("environments/file"), h.path("environments/link")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"r10k": sha[:12], "g10k": sha[:12], "file": "v1.2.3", "link": "v1.2.3", "strange": "a?b??" + strings.Repeat("c", 59),
		"sha256": long[:12], "both": sha[:12], "packed": sha[:12], "symbolic": sha[:12], "loop": "", "outside": "",
		"unborn": "by?file", "broken": "", "nothing": "",
	}
	if diff := cmp.Diff(want, h.revisions()); diff != "" {
		t.Error(diff)
	}
}

// packed-refs may be large and is kept, until it changes.
func TestPackedRefsChange(t *testing.T) {
	a, b := strings.Repeat("a", 40), strings.Repeat("b", 40)
	h := newHost(t)
	h.Environments = h.path("environments")
	h.write("environments/production/.git/HEAD", []byte("ref: refs/heads/x\n"))
	g := h.gatherer()
	for _, sha := range []string{a, b, a} {
		h.write("environments/production/.git/packed-refs", []byte(sha+" refs/heads/x\n"))
		for range 3 {
			got := g.Look(context.Background()).Code
			if diff := cmp.Diff([]evidence.Environment{{Name: "production", Revision: sha[:12]}}, got); diff != "" {
				t.Fatal(diff)
			}
		}
	}
}

func TestManyEnvironments(t *testing.T) {
	h := newHost(t)
	for i := range 300 {
		h.write(fmt.Sprintf("environments/a%03d/REVISION", i), []byte("x"))
	}
	h.write("environments/production/REVISION", []byte("y"))
	got := h.revisions()
	if len(got) != 256 || got["production"] != "y" {
		t.Errorf("%d environments, production %q", len(got), got["production"])
	}
}

// A pipe in place of a file would be waited for.
func TestSpecialFiles(t *testing.T) {
	h := newHost(t)
	h.write("environments/production/x", nil)
	if err := exec.Command("mkfifo", filepath.Join(h.path("environments/production"), "REVISION")).Run(); err != nil {
		t.Skipf("NO PIPES: %s", err)
	}
	if diff := cmp.Diff(map[string]string{"production": ""}, h.revisions()); diff != "" {
		t.Error(diff)
	}
}
