// Gensdk makes SDKs, and the programs in the documentation, from a Pulumi schema with Pulumi's own generators.
//
//	gensdk sdks SCHEMA FOLDER   writes FOLDER/python, FOLDER/nodejs and FOLDER/go
//	gensdk programs SCHEMA      reads a JSON object of programs in Pulumi's configuration language by name, and
//	                            prints one of programs by name and language
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/blang/semver"
	"github.com/hashicorp/hcl/v2"
	gogen "github.com/pulumi/pulumi/pkg/v3/codegen/go"
	"github.com/pulumi/pulumi/pkg/v3/codegen/hcl2/syntax"
	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/pcl"
	"github.com/pulumi/pulumi/pkg/v3/codegen/python"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

const tool = "gensdk"

type files = map[string][]byte

var sdks = map[string]func(*schema.Package) (files, error){
	"python": func(pkg *schema.Package) (files, error) { return python.GeneratePackage(tool, pkg, nil, nil) },
	"nodejs": func(pkg *schema.Package) (files, error) {
		return nodejs.GeneratePackage(tool, pkg, nil, nil, false, nil)
	},
	"go": func(pkg *schema.Package) (files, error) { return gogen.GeneratePackage(tool, pkg, nil) },
}

var programs = map[string]struct {
	file     string
	generate func(*pcl.Program) (files, hcl.Diagnostics, error)
}{
	"python":     {"__main__.py", python.GenerateProgram},
	"typescript": {"index.ts", nodejs.GenerateProgram},
	"go":         {"main.go", gogen.GenerateProgram},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", tool, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "sdks":
		return writeSDKs(args[1], args[2])
	case len(args) == 2 && args[0] == "programs":
		return printPrograms(args[1])
	}
	return fmt.Errorf("usage: %[1]s sdks SCHEMA FOLDER | %[1]s programs SCHEMA", tool)
}

func writeSDKs(path, folder string) error {
	for language, generate := range sdks {
		pkg, err := load(path) // anew for each: a generator leaves its marks in it
		if err != nil {
			return err
		}
		made, err := generate(pkg)
		if err != nil {
			return fmt.Errorf("%s: %w", language, err)
		}
		for name, content := range made {
			target := filepath.Join(folder, language, name)
			if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(target, content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func printPrograms(path string) error {
	var sources map[string]string
	if err := json.NewDecoder(os.Stdin).Decode(&sources); err != nil {
		return err
	}
	texts := map[string]map[string]string{}
	for name, source := range sources {
		texts[name] = map[string]string{}
		for language := range programs {
			text, err := translate(path, source, language)
			if err != nil {
				return fmt.Errorf("%s in %s: %w", name, language, err)
			}
			texts[name][language] = text
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(texts)
}

func translate(path, source, language string) (string, error) {
	pkg, err := load(path)
	if err != nil {
		return "", err
	}
	parser := syntax.NewParser()
	if err := parser.ParseFile(strings.NewReader(source), "main.pp"); err != nil {
		return "", err
	}
	if parser.Diagnostics.HasErrors() {
		return "", parser.Diagnostics
	}
	bound, diagnostics, err := pcl.BindProgram(parser.Files, loader{pkg}, pcl.PreferOutputVersionedInvokes)
	if err != nil {
		return "", err
	}
	if len(diagnostics) > 0 {
		return "", diagnostics
	}
	made, diagnostics, err := programs[language].generate(bound)
	if err != nil {
		return "", err
	}
	if len(diagnostics) > 0 {
		return "", diagnostics
	}
	return string(made[programs[language].file]), nil
}

func load(path string) (*schema.Package, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var spec schema.PackageSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, err
	}
	pkg, diagnostics, err := schema.BindSpec(spec, schema.NewNullLoader(), schema.ValidationOptions{})
	if err != nil {
		return nil, err
	}
	if len(diagnostics) > 0 {
		return nil, diagnostics
	}
	return pkg, nil
}

// loader knows the one package that the programs may use.
type loader struct{ pkg *schema.Package }

func (l loader) LoadPackage(name string, _ *semver.Version) (*schema.Package, error) {
	if name != l.pkg.Name {
		return nil, fmt.Errorf("a program here uses %s alone, not %s", l.pkg.Name, name)
	}
	return l.pkg, nil
}

func (l loader) LoadPackageV2(_ context.Context, wanted *schema.PackageDescriptor) (*schema.Package, error) {
	return l.LoadPackage(wanted.Name, wanted.Version)
}
