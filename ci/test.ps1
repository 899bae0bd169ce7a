<#
.SYNOPSIS
Windows: builds one configuration and runs its tests; what the configuration needs is installed if it is missing.

.DESCRIPTION
mingw builds everything and runs all tests, with cmocka from vcpkg. msvc builds the library, the shared library and the
examples with Visual Studio, and runs the conversation with the example server: the tests themselves use what only GCC and
Clang understand.

.EXAMPLE
ci\test.ps1
ci\test.ps1 -Compiler msvc -BuildType Release
#>
param(
    [ValidateSet('mingw', 'msvc')] [string]$Compiler = 'mingw',
    [ValidateSet('Debug', 'Release')] [string]$BuildType = 'Debug',
    [string]$Filter = '',
    [int]$Jobs = 2
)
. "$PSScriptRoot\lib.ps1"
Set-Location "$PSScriptRoot\.."
Request-Tool 'cmake' 'Kitware.CMake'

if ($Compiler -eq 'msvc') {
    if (-not (Find-VisualStudio)) { Stop-With 'please install Visual Studio, or its Build Tools, with the workload for C++' }
    $build = 'build/msvc'
    Invoke-Step 'cmake' @('-S', '.', '-B', $build, '-A', 'x64', '-DROUSE_BUILD_TESTS=OFF', '-DROUSE_BUILD_BENCH=OFF')
    Invoke-Step 'cmake' @('--build', $build, '--config', $BuildType, '--parallel', "$Jobs")
    $server = Get-ChildItem "$build/bin" -Recurse -Filter poll_server.exe | Select-Object -First 1
    & "$PSScriptRoot\demo.ps1" -Once -Server $server.FullName
    exit $LASTEXITCODE
}

Request-Tool 'gcc' 'BrechtSanders.WinLibs.POSIX.UCRT'
Request-Tool 'ninja' 'Ninja-build.Ninja'

# cmocka, by the vcpkg that is there, or by one of this build's own.
$vcpkg = $env:VCPKG_INSTALLATION_ROOT
if (-not $vcpkg) { $vcpkg = $env:VCPKG_ROOT }
if (-not $vcpkg) {
    $vcpkg = "$PWD\build\vcpkg"
    if (-not (Test-Path "$vcpkg\vcpkg.exe")) {
        Request-Tool 'git' 'Git.Git'
        Invoke-Step 'git' @('clone', '--depth', '1', 'https://github.com/microsoft/vcpkg', $vcpkg)
        Invoke-Step "$vcpkg\bootstrap-vcpkg.bat" @('-disableMetrics')
    }
}
$triplet = 'x64-mingw-static'
$root = "$PWD\build\vcpkg-installed".Replace('\', '/')
Invoke-Step "$vcpkg\vcpkg.exe" @('install', "cmocka:$triplet", "--host-triplet=$triplet", "--x-install-root=$root")

$build = 'build/windows'
Invoke-Step 'cmake' @('--preset', 'windows', "-DCMAKE_BUILD_TYPE=$BuildType", "-DCMAKE_PREFIX_PATH=$root/$triplet")
Invoke-Step 'cmake' @('--build', $build, '--parallel', "$Jobs")
$chosen = @()
if ($Filter) { $chosen = @('-R', $Filter) }
Invoke-Step 'ctest' (@('--test-dir', $build, '--output-on-failure', '--no-tests=error', '-j', "$Jobs") + $chosen)
