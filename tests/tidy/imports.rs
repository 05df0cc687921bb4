//! Which file imports which: reads the `use` declarations of a crate with `syn` and follows each to the file that
//! defines the name, through re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree};

/// Path of a module below the crate, such as `["store", "journal"]`.
type ModulePath = Vec<String>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Names that the file defines, modules apart.
    defined: BTreeSet<String>,
    /// Names that the file brings into scope, with the path that each stands for.
    imported: BTreeMap<String, ModulePath>,
    /// Modules of which it imports everything.
    globs: Vec<ModulePath>,
    /// Paths that its declarations and code use.
    used: Vec<ModulePath>,
}

/// Imports between files. A re-export by a parent of what its children define is wiring and no import.
pub struct Imports {
    modules: BTreeMap<ModulePath, Module>,
}

impl Imports {
    /// Reads every file below `root`, whose crate root is `root/lib.rs`.
    pub fn read(root: &Path) -> Self {
        let mut imports = Self { modules: BTreeMap::new() };
        imports.read_module(root.join("lib.rs"), Vec::new());
        imports
    }

    fn read_module(&mut self, file: PathBuf, path: ModulePath) {
        let text = fs::read_to_string(&file).expect("a source file");
        let parsed = syn::parse_file(&text).expect("Rust");
        let is_parent = ["lib", "mod"].iter().any(|stem| file.file_stem().is_some_and(|found| found == *stem));
        let directory = if is_parent { file.with_file_name("") } else { file.with_extension("") };
        let mut reader =
            Reader { path: path.clone(), module: Module { file, ..Module::default() }, children: Vec::new() };
        for item in parsed.items.iter().filter(|item| !is_test(attributes(item))) {
            reader.read_item(item);
        }
        self.modules.insert(path.clone(), reader.module);
        for child in reader.children {
            let files = [directory.join(format!("{child}.rs")), directory.join(&child).join("mod.rs")];
            if let Some(file) = files.into_iter().find(|file| file.is_file()) {
                self.read_module(file, [path.clone(), vec![child]].concat());
            }
        }
    }

    /// Each file with those that it imports from.
    pub fn by_file(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut found = BTreeMap::new();
        for (path, module) in &self.modules {
            let targets = module.used.iter().filter_map(|used| self.definer(used, 0)).filter(|target| *target != path);
            found.insert(&*module.file, targets.map(|target| &*self.modules[target].file).collect());
        }
        found
    }

    /// The module whose file defines what a path names.
    fn definer(&self, path: &[String], depth: usize) -> Option<&ModulePath> {
        let (at, module) = (0..=path.len()).rev().find_map(|end| self.modules.get_key_value(&path[..end]))?;
        // Re-exports are followed a few steps only, so that two that name each other end as well.
        let Some(name) = path.get(at.len()).filter(|_| depth < 8) else { return Some(at) };
        if module.defined.contains(name) {
            return Some(at);
        }
        if let Some(target) = module.imported.get(name) {
            let rest = &path[at.len() + 1..];
            return self.definer(&[target, rest].concat(), depth + 1);
        }
        let through = |glob: &ModulePath| {
            let target = [&glob[..], &path[at.len()..]].concat();
            let (owner, module) =
                (0..=target.len()).rev().find_map(|end| self.modules.get_key_value(&target[..end]))?;
            let next = target.get(owner.len())?;
            let has = module.defined.contains(next) || module.imported.contains_key(next);
            has.then(|| self.definer(&target, depth + 1)).flatten()
        };
        module.globs.iter().find_map(through).or(Some(at))
    }

    /// Groups of files that import each other in a circle.
    pub fn circles(&self) -> Vec<BTreeSet<&Path>> {
        let files = self.by_file();
        let reach: BTreeMap<&Path, BTreeSet<&Path>> =
            files.keys().map(|file| (*file, reachable(&files, file))).collect();
        let mut circles: Vec<BTreeSet<&Path>> = Vec::new();
        for (file, targets) in &reach {
            let circle: BTreeSet<&Path> = targets.iter().copied().filter(|other| reach[other].contains(file)).collect();
            if circle.len() > 1 && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }
}

/// The files that a file imports, directly or through others.
fn reachable<'a>(files: &BTreeMap<&'a Path, BTreeSet<&'a Path>>, from: &'a Path) -> BTreeSet<&'a Path> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(files[file].iter().copied().filter(|target| seen.insert(*target)));
    }
    seen
}

/// Collects what one file defines, imports and names.
struct Reader {
    path: ModulePath,
    module: Module,
    children: Vec<String>,
}

impl Reader {
    /// The path from the crate's root; `None` for what another crate defines.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let mut base = self.path.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                base.truncate(base.len().checked_sub(ups)?);
                return Some([&base[..], &path[ups..]].concat());
            }
            child if self.children.iter().any(|known| known == child) => return Some([base, path.to_vec()].concat()),
            name => return self.module.imported.get(name).map(|target| [&target[..], rest].concat()),
        }
        Some([base, rest.to_vec()].concat())
    }

    fn read_use(&mut self, tree: &UseTree, prefix: &[String], is_export: bool) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.read_use(&path.tree, &with(&path.ident), is_export),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.read_use(item, prefix, is_export)),
            UseTree::Name(name) if name.ident == "self" => {
                let alias = prefix.last().cloned().unwrap_or_default();
                self.import(alias, prefix, is_export);
            }
            UseTree::Name(name) => self.import(name.ident.to_string(), &with(&name.ident), is_export),
            UseTree::Rename(rename) => self.import(rename.rename.to_string(), &with(&rename.ident), is_export),
            UseTree::Glob(_) => {
                if let Some(target) = self.absolute(prefix) {
                    self.module.globs.push(target);
                }
            }
        }
    }

    fn import(&mut self, alias: String, path: &[String], is_export: bool) {
        let Some(target) = self.absolute(path) else { return };
        let is_wiring = is_export && target.starts_with(&self.path) && target.len() > self.path.len();
        if !is_wiring {
            self.module.used.push(target.clone());
        }
        self.module.imported.insert(alias, target);
    }
}

impl Reader {
    fn read_item(&mut self, item: &Item) {
        let name = match item {
            Item::Mod(module) if module.content.is_none() => return self.children.push(module.ident.to_string()),
            Item::Use(declaration) => {
                let is_export = !matches!(declaration.vis, syn::Visibility::Inherited);
                return self.read_use(&declaration.tree, &[], is_export);
            }
            Item::Struct(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Const(item) => Some(&item.ident),
            Item::Static(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Mod(item) => Some(&item.ident),
            _ => None,
        };
        self.module.defined.extend(name.map(ToString::to_string));
        self.read_paths(item.to_token_stream());
    }

    /// Every path of two segments or more, inside macros as well.
    fn read_paths(&mut self, tokens: TokenStream) {
        let mut path: ModulePath = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 => path.push(ident.to_string()),
                TokenTree::Ident(ident) => {
                    self.end_path(&mut path);
                    path.push(ident.to_string());
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.end_path(&mut path);
                    self.read_paths(group.stream());
                }
                _ => self.end_path(&mut path),
            }
            colons = 0;
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut ModulePath) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.module.used.extend(self.absolute(&path));
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}
