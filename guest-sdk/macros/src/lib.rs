//! The attribute macro of `wasmhost-guest`.
//!
//! Invariant: the function is left as it is written; what is added exists on Wasm targets only, so that native tests
//! call the function directly.

use std::path::{Path, PathBuf};

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, ItemFn, LitStr, ReturnType};

/// The manifest that is embedded when the attribute names none.
const MANIFEST_FILE: &str = "jumpscript.toml";
/// The custom section that carries it; the host reads the same name.
const MANIFEST_SECTION: &str = "wasmhost:manifest";

/// Makes a function the job of this jumpscript: `fn run(job: Job<Args>) -> Result<Out, JobError>`.
///
/// `jumpscript.toml` beside the `Cargo.toml` is embedded when it is there; `#[job(manifest = "path")]` names another
/// file, relative to the `Cargo.toml`.
#[proc_macro_attribute]
pub fn job(attributes: TokenStream, item: TokenStream) -> TokenStream {
    let mut manifest = None;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("manifest") {
            manifest = Some(meta.value()?.parse::<LitStr>()?);
            return Ok(());
        }
        Err(meta.error("unknown option of `#[job]`; there is one: `manifest = \"jumpscript.toml\"`"))
    });
    let parsed = syn::parse::Parser::parse(parser, attributes).and_then(|()| syn::parse::<ItemFn>(item.clone()));
    let function = match parsed {
        Ok(function) => function,
        Err(error) => return with_original(item, &error),
    };
    match check(&function).and_then(|()| embed(manifest.as_ref())) {
        Ok(manifest) => expand(&function, &manifest).into(),
        Err(error) => with_original(item, &error),
    }
}

/// The error beside the untouched function: editors keep their completion while it is being written.
fn with_original(item: TokenStream, error: &Error) -> TokenStream {
    let item = Tokens::from(item);
    let error = error.to_compile_error();
    quote!(#item #error).into()
}

fn check(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(
            token.span(),
            "a job function is not async: it has the instance to itself, and may block until its timeout",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a job function has no generics: the host calls it with bytes, name the concrete type of the arguments",
        ));
    }
    let mut inputs = signature.inputs.iter();
    match (inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(_)), None) => {}
        (Some(FnArg::Receiver(receiver)), _) => {
            return Err(Error::new(receiver.span(), "a job function is a free function: it takes no `self`"));
        }
        (None, _) => {
            return Err(Error::new(
                signature.ident.span(),
                "a job function takes the job: `fn run(job: Job<Args>)`; use `Job<()>` when it has no arguments",
            ));
        }
        (_, Some(extra)) => {
            return Err(Error::new(
                extra.span(),
                "a job function takes one parameter, the job; put what it needs into the type `Args` of `Job<Args>`",
            ));
        }
    }
    if matches!(signature.output, ReturnType::Default) {
        return Err(Error::new(
            signature.ident.span(),
            "a job function returns a result: `-> Result<Out, JobError>`; use `()` for `Out` when there is none",
        ));
    }
    Ok(())
}

/// The tokens that put the manifest into its custom section; none when there is no manifest.
fn embed(named: Option<&LitStr>) -> Result<Tokens, Error> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let path = root.join(named.map_or_else(|| MANIFEST_FILE.to_owned(), LitStr::value));
    if !path.is_file() {
        return match named {
            Some(name) => Err(Error::new(name.span(), format!("there is no manifest at `{}`", path.display()))),
            None => Ok(Tokens::new()),
        };
    }
    let path = display(&path);
    Ok(quote! {
        // `include_bytes` makes the compiler watch the file.
        #[used]
        #[unsafe(link_section = #MANIFEST_SECTION)]
        static MANIFEST: [u8; include_bytes!(#path).len()] = *include_bytes!(#path);
    })
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

fn expand(function: &ItemFn, manifest: &Tokens) -> Tokens {
    let name = &function.sig.ident;
    let exported = format_ident!("WasmhostJob");
    quote! {
        #function

        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, missing_docs, reason = "the exports of a component are raw functions")]
        const _: () = {
            #manifest

            struct #exported;

            impl ::wasmhost_guest::__private::Guest for #exported {
                fn run(
                    job: ::wasmhost_guest::__private::types::Job,
                ) -> ::core::result::Result<
                    ::std::vec::Vec<u8>,
                    ::wasmhost_guest::__private::types::JobError,
                > {
                    ::wasmhost_guest::__private::call(job, #name)
                }
            }

            ::wasmhost_guest::__private::export!(#exported with_types_in ::wasmhost_guest::__private);
        };

        // Checked on every target, so that a native test says the same about the types as the Wasm build.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn is_a_job<A: ::wasmhost_guest::FromPayload, R: ::wasmhost_guest::IntoResult>(
                _: fn(::wasmhost_guest::Job<A>) -> ::core::result::Result<R, ::wasmhost_guest::JobError>,
            ) {
            }
            is_a_job(#name);
        };
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn refusal(function: &ItemFn) -> String {
        check(function).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_wrong_signature_is_explained() {
        assert!(
            refusal(&parse_quote!(
                async fn run(job: Job<()>) -> Result<(), JobError> {}
            ))
            .contains("not async")
        );
        assert!(
            refusal(&parse_quote!(
                fn run<T>(job: Job<T>) -> Result<(), JobError> {}
            ))
            .contains("no generics")
        );
        assert!(
            refusal(&parse_quote!(
                fn run() -> Result<(), JobError> {}
            ))
            .contains("`Job<()>`")
        );
        assert!(
            refusal(&parse_quote!(
                fn run(&self) -> Result<(), JobError> {}
            ))
            .contains("no `self`")
        );
        assert!(
            refusal(&parse_quote!(
                fn run(a: A, b: B) -> Result<(), JobError> {}
            ))
            .contains("one parameter")
        );
        assert!(
            refusal(&parse_quote!(
                fn run(job: Job<()>) {}
            ))
            .contains("returns a result")
        );
        assert!(
            check(&parse_quote!(
                fn run(job: Job<Args>) -> Result<Out, JobError> {}
            ))
            .is_ok()
        );
    }
}
