package dropin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	ownPath      = "github.com/seed-d18e112a/clientv3"
	officialPath = "go.etcd.io/etcd/client/v3"
)

// A swap is a module in a directory of its own in which the import path of the official client means this client.
type swap struct {
	dir string
}

// newSwap writes the module to dir: the files of module, and in client a copy of the client whose sources are in root.
func newSwap(dir, module, root string) (*swap, error) {
	s := &swap{dir: dir}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := copyFile(filepath.Join(dir, name), filepath.Join(module, name)); err != nil {
			return nil, err
		}
	}
	if err := copyClient(filepath.Join(dir, "client"), root); err != nil {
		return nil, err
	}
	return s, nil
}

// command returns a go command that runs in the module, apart from any workspace.
func (s *swap) command(args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = s.dir
	cmd.Env = s.env()
	return cmd
}

// env is the environment of a command that runs in the module.
func (s *swap) env() []string {
	return append(os.Environ(), "GOWORK=off", "PWD="+s.dir)
}

// update adds to the module's files what the client and the tools have come to need, and stores them in module.
func (s *swap) update(module string) error {
	if out, err := s.command("mod", "tidy").CombinedOutput(); err != nil {
		return fmt.Errorf("go mod tidy: %w\n%s", err, out)
	}
	return errors.Join(
		copyFile(filepath.Join(module, "go.mod"), filepath.Join(s.dir, "go.mod")),
		copyFile(filepath.Join(module, "go.sum"), filepath.Join(s.dir, "go.sum")),
	)
}

// copyClient copies the sources of the module in root, without its tests and nested modules, to dir, and gives them the
// official import path.
func copyClient(dir, root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			if rel == "." {
				return os.MkdirAll(dir, 0o750)
			}
			if strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || hasFile(path, "go.mod") {
				return filepath.SkipDir
			}
			return nil
		case rel != "go.mod" && (filepath.Ext(rel) != ".go" || strings.HasSuffix(rel, "_test.go")):
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
			return err
		}
		return os.WriteFile(to, []byte(strings.ReplaceAll(string(content), ownPath, officialPath)), 0o600)
	})
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

func hasFile(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}
