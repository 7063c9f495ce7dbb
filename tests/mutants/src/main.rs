//! Writes mistakes into source files, each behind a switch: `is(17)` asks whether the seventeenth is the one that is made. With all of
//! them in one build no mistake costs a build of its own.
//!
//! What is changed is what people get wrong: comparisons and their borders, `and` and `or`, plus and minus, a negation, and a function that does
//! nothing (DeMillo, Lipton, Sayward: Hints on Test Data Selection, IEEE Computer 11(4), 1978). Tests and constants are left as they are.
//!
//! Usage: holdfast-mutants FIRST FILE...: rewrites the files, numbers from FIRST on, and prints a line for each mistake. `MUTANTS_SKIP` has
//! numbers that are left out.

use std::process::ExitCode;

use proc_macro2::Span;
use quote::quote;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Block, Expr, ReturnType, Type, UnOp};

/// One file on its way through.
struct Mutator {
    file: String,
    next: u32,
    told: Vec<String>,
    /// Those that are no Rust: a string that is taken from another, say.
    skip: Vec<u32>,
    /// The function that is being looked at, for the lines.
    within: String,
}

impl Mutator {
    fn number(&mut self, at: Span, what: &str) -> Option<u32> {
        let number = self.next;
        self.next += 1;
        if self.skip.contains(&number) {
            return None;
        }
        let line = at.start().line;
        self.told.push(format!("{number}\t{}:{line}\t{}\t{what}", self.file, self.within));
        Some(number)
    }

    fn body(&mut self, name: &str, at: Span, output: &ReturnType, block: &mut Block) {
        if block.stmts.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.within, name.to_owned());
        visit_mut::visit_block_mut(self, block);
        for (shown, value) in values(output) {
            let Some(n) = self.number(at, &format!("returns {shown} at once")) else { continue };
            block.stmts.insert(0, syn::parse_quote!(if crate::mutant::is(#n) { return #value; }));
        }
        self.within = before;
    }
}

/// What a function could return without doing anything.
fn values(output: &ReturnType) -> Vec<(String, proc_macro2::TokenStream)> {
    let ReturnType::Type(_, of) = output else { return vec![("()".into(), quote!(()))] };
    values_of(of)
}

fn values_of(of: &Type) -> Vec<(String, proc_macro2::TokenStream)> {
    let Type::Path(path) = of else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    let inner = || match &last.arguments {
        syn::PathArguments::AngleBracketed(list) => list.args.iter().find_map(|arg| match arg {
            syn::GenericArgument::Type(of) => Some(of.clone()),
            _ => None,
        }),
        _ => None,
    };
    let named = |list: &[&str]| -> Vec<_> {
        list.iter().map(|text| ((*text).to_owned(), text.parse().expect("written here"))).collect()
    };
    match last.ident.to_string().as_str() {
        "bool" => named(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => named(&["0", "1"]),
        "Option" => named(&["None"]),
        "Vec" => named(&["Vec::new()"]),
        "Result" => match inner() {
            Some(Type::Tuple(tuple)) if tuple.elems.is_empty() => named(&["Ok(())"]),
            Some(of) => {
                let values = values_of(&of).into_iter();
                values.map(|(shown, value)| (format!("Ok({shown})"), quote!(Ok(#value)))).collect()
            }
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What else an operator could be.
fn others(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">"],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<"],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["+"],
        BinOp::Div(_) => &["*"],
        _ => &[],
    }
}

/// Whether a chain of conditions binds a name: it cannot stand anywhere else.
fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(both) => binds(&both.left) || binds(&both.right),
        Expr::Paren(inner) => binds(&inner.expr),
        _ => false,
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = quote!(#attribute).to_string();
        attribute.path().is_ident("test") || (attribute.path().is_ident("cfg") && text.contains("test"))
    })
}

impl VisitMut for Mutator {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        // What was made anew below it has no place any more.
        let at = expr.span();
        visit_mut::visit_expr_mut(self, expr);
        match expr {
            Expr::Binary(both) if !binds(&both.left) && !binds(&both.right) => {
                let (left, right, op) = (both.left.clone(), both.right.clone(), both.op);
                let mut made: Expr = expr.clone();
                for other in others(&op) {
                    let shown = quote!(#op).to_string();
                    let Some(n) = self.number(at, &format!("{shown} is {other}")) else { continue };
                    let op: BinOp = syn::parse_str(other).expect("written here");
                    made = syn::parse_quote!((if crate::mutant::is(#n) { #left #op #right } else { #made }));
                }
                *expr = made;
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let inner = unary.expr.clone();
                let Some(n) = self.number(at, "! is left out") else { return };
                *expr = syn::parse_quote!((if crate::mutant::is(#n) { #inner } else { !#inner }));
            }
            _ => {}
        }
    }

    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            self.body(&item.sig.ident.to_string(), item.sig.span(), &item.sig.output, &mut item.block);
        }
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        if item.sig.constness.is_none() && !is_test(&item.attrs) {
            self.body(&item.sig.ident.to_string(), item.sig.span(), &item.sig.output, &mut item.block);
        }
    }

    fn visit_item_impl_mut(&mut self, item: &mut syn::ItemImpl) {
        // What is printed for people to debug with, and what only wipes memory, no test can see.
        let of = item.trait_.as_ref().and_then(|(path, _)| path.segments.last()).map(|s| s.ident.to_string());
        if !matches!(of.as_deref(), Some("Debug" | "Drop" | "Hash")) && !is_test(&item.attrs) {
            visit_mut::visit_item_impl_mut(self, item);
        }
    }

    fn visit_item_mod_mut(&mut self, item: &mut syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit_mut::visit_item_mod_mut(self, item);
        }
    }

    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}
    fn visit_attribute_mut(&mut self, _: &mut syn::Attribute) {}
    fn visit_expr_const_mut(&mut self, _: &mut syn::ExprConst) {}
    fn visit_expr_repeat_mut(&mut self, _: &mut syn::ExprRepeat) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}
}

fn mutate(path: &str, first: u32) -> Result<(u32, Vec<String>), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let mut file = syn::parse_file(&text).map_err(|e| format!("{path}: {e}"))?;
    let skip = std::env::var("MUTANTS_SKIP").unwrap_or_default();
    let skip = skip.split(',').filter_map(|number| number.parse().ok()).collect();
    let mut mutator =
        Mutator { file: path.to_owned(), next: first, told: Vec::new(), skip, within: String::new() };
    mutator.visit_file_mut(&mut file);
    std::fs::write(path, prettyplease::unparse(&file)).map_err(|e| format!("{path}: {e}"))?;
    Ok((mutator.next, mutator.told))
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(Ok(mut next)) = args.next().map(|first| first.parse::<u32>()) else {
        eprintln!("usage: holdfast-mutants FIRST FILE...");
        return ExitCode::from(2);
    };
    for path in args {
        match mutate(&path, next) {
            Ok((after, told)) => {
                next = after;
                told.iter().for_each(|line| println!("{line}"));
            }
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
