//! The one macro that turns a Rust function into a module's entry.

/// Makes `fn handle(Request) -> Result<Response, Error>` the function of this module. Once per crate.
///
/// On other targets than Wasm it only checks the type, so that the crate's tests can call the function directly.
#[macro_export]
macro_rules! function {
    ($handler:path) => {
        const _: fn($crate::Request) -> ::core::result::Result<$crate::Response, $crate::Error> = $handler;

        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn nigh_alloc_v1(len: u32) -> u32 {
            $crate::abi::alloc(len)
        }

        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        extern "C" fn nigh_handle_v1(payload_len: u32, head_len: u32) -> u32 {
            $crate::abi::handle($handler, payload_len, head_len)
        }
    };
}
