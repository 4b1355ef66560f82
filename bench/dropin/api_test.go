package dropin

import (
	"go/types"
	"slices"
	"testing"

	"golang.org/x/exp/apidiff"
	"golang.org/x/tools/go/packages"
)

// publicPackages are the packages of the official client, relative to its root.
var publicPackages = []string{
	"",
	"/clientv3util",
	"/concurrency",
	"/credentials",
	"/experimental/recipes",
	"/kubernetes",
	"/leasing",
	"/mirror",
	"/mock/mockserver",
	"/namespace",
	"/naming/endpoints",
	"/naming/resolver",
	"/ordering",
	"/snapshot",
	"/yaml",
}

// Every exported name of the official client exists here, and whatever compiles with its type, or with its constant's
// value, compiles with the one here.
func TestAPI(t *testing.T) {
	official := loadPublic(t, ".", nil)
	own := loadPublic(t, swapped.dir, swapped.env())
	for _, path := range publicPackages {
		path = officialPath + path
		t.Run(path, func(t *testing.T) {
			if official[path] == nil || own[path] == nil {
				t.Fatal("package is missing")
			}
			for _, change := range apidiff.Changes(official[path], own[path]).Changes {
				if change.Compatible {
					t.Log("beyond the official API: ", change.Message)
				} else {
					t.Error(change.Message)
				}
			}
		})
	}
	// The other way round, what is missing is all that exists here only.
	t.Run("comparison finds what is missing", func(t *testing.T) {
		var missing []string
		for _, change := range apidiff.Changes(own[officialPath], official[officialPath]).Changes {
			if !change.Compatible {
				missing = append(missing, change.Message)
			}
		}
		for _, want := range []string{"MayHaveApplied: removed", "WithLeaseID: removed"} {
			if !slices.Contains(missing, want) {
				t.Errorf("%q not found among %q", want, missing)
			}
		}
	})
}

// loadPublic returns the types of the public packages as seen from the module in dir.
func loadPublic(t *testing.T, dir string, env []string) map[string]*types.Package {
	t.Helper()
	var patterns []string
	for _, path := range publicPackages {
		patterns = append(patterns, officialPath+path)
	}
	loaded, err := packages.Load(&packages.Config{
		Mode:       packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedDeps,
		Context:    t.Context(),
		Dir:        dir,
		Env:        env,
		BuildFlags: []string{"-trimpath"},
	}, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	byPath := make(map[string]*types.Package)
	for _, pkg := range loaded {
		for _, err := range pkg.Errors {
			t.Errorf("loading %s: %v", pkg.PkgPath, err)
		}
		if len(pkg.Errors) == 0 {
			byPath[pkg.PkgPath] = pkg.Types
		}
	}
	return byPath
}
